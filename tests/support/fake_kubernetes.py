"""A small API server of Kubernetes on loopback, with KubeRay's resources: it checks objects and starts nothing.

The schemas are KubeRay's (commit feeaf72 of 2026-08-19, Apache-2.0), made smaller by tools/kuberay_schemas.py. Rules in
CEL (x-kubernetes-validations) are not evaluated.
"""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import jsonschema

SCHEMAS = Path(__file__).parent / "kuberay"
# Where the objects of each kind lie.
PLACES = {
    "RayCluster": "/apis/ray.io/v1/namespaces/default/rayclusters",
    "RayJob": "/apis/ray.io/v1/namespaces/default/rayjobs",
    "ServiceAccount": "/api/v1/namespaces/default/serviceaccounts",
    "Secret": "/api/v1/namespaces/default/secrets",
}


@cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    """Return what checks the objects of one of KubeRay's kinds."""
    schema = json.loads(gzip.decompress((SCHEMAS / f"{kind}.json.gz").read_bytes()))
    return jsonschema.Draft202012Validator(structural(schema))


def structural(schema: Any) -> Any:
    """A structural schema as JSON Schema: what it does not name is refused, as `kubectl --validate=strict` does.

    The API server itself knows `metadata`, which the schema leaves open.
    """
    if isinstance(schema, list):
        return [structural(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: structural(value) for key, value in schema.items() if key not in ("properties", "pattern")}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("anyOf", None)
        made["type"] = ["integer", "string"]
    if "pattern" in schema:
        # Of a quantity; numbers have none.
        made["pattern"] = schema["pattern"]
    if "properties" in schema:
        made["properties"] = {name: structural(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            made["additionalProperties"] = False
    if schema.get("nullable"):
        made["type"] = [schema["type"], "null"]
    return made


class FakeKubernetes:
    """Objects by kind and name, and what is wrong with a new one."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {kind: {} for kind in PLACES}

    def problems(self, described: dict[str, Any]) -> Iterator[str]:
        """Yield what the API server, or the operator when it makes pods, would refuse."""
        kind = described["kind"]
        if kind in ("RayCluster", "RayJob"):
            yield from (f"{error.json_path}: {error.message}" for error in validator(kind).iter_errors(described))
            spec = described["spec"]
            yield from self._of_cluster(spec if kind == "RayCluster" else spec.get("rayClusterSpec", {}))

    def _of_cluster(self, spec: dict[str, Any]) -> Iterator[str]:
        secrets, accounts = self.objects["Secret"], self.objects["ServiceAccount"]
        token = spec.get("authOptions", {}).get("secretName")
        if token is not None and "auth_token" not in secrets.get(token, {}).get("stringData", {}):
            yield f"secret {token!r} with the key 'auth_token' not found"
        for group in (spec["headGroupSpec"], *spec.get("workerGroupSpecs", ())):
            pod = group["template"]["spec"]
            account = pod.get("serviceAccountName", "default")
            if account != "default" and account not in accounts:
                yield f"serviceaccount {account!r} not found"
            for source in (one for container in pod["containers"] for one in container.get("envFrom", ())):
                reference = source.get("secretRef", {"optional": True})
                if not reference.get("optional") and reference["name"] not in secrets:
                    yield f"secret {reference['name']!r} not found"


@contextmanager
def fake_kubernetes() -> Iterator[tuple[FakeKubernetes, str]]:
    """Serve a new one; yields it and its address."""
    state = FakeKubernetes()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, code: int, answer: Any) -> None:
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def do_PUT(self) -> None:
            described = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            place, _, name = self.path.rpartition("/")
            group, kind = described.get("apiVersion"), described.get("kind")
            if PLACES.get(kind) != place or not place.startswith(
                f"/apis/{group}/" if "/" in group else f"/api/{group}/"
            ):
                self._answer(404, {"message": f"no kind {kind!r} of {group!r} at {place}"})
            elif problems := [*state.problems(described)]:
                self._answer(422, {"message": "; ".join(problems)})
            else:
                new = name not in state.objects[kind]
                state.objects[kind][name] = described
                self._answer(201 if new else 200, described)

        def do_DELETE(self) -> None:
            place, _, name = self.path.rpartition("/")
            kind = next((kind for kind, known in PLACES.items() if known == place), None)
            there = kind is not None and state.objects[kind].pop(name, None) is not None
            self._answer(200 if there else 404, {})

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(address: str, method: str, described: dict[str, Any]) -> tuple[int, str]:
    """Send an object as kubectl does; returns the status and the server's message.

    Args:
        address: of the server.
        method: PUT to create or replace, DELETE to remove.
        described: the object.
    """
    where = f"{address}{PLACES.get(described['kind'], '/none')}/{described['metadata']['name']}"
    body = json.dumps(described).encode()
    try:
        with urlopen(Request(where, body, {"Content-Type": "application/json"}, method=method), timeout=10) as answer:
            return answer.status, json.load(answer).get("message", "")
    except HTTPError as error:
        with error:
            return error.code, json.load(error).get("message", "")

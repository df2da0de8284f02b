"""Write the schemas of KubeRay's custom resources for the tests: definitions as published in, small files out.

    python tools/kuberay_schemas.py FOLDER

FOLDER holds ray.io_rayclusters.yaml and ray.io_rayjobs.yaml of KubeRay (helm-chart/kuberay-operator/crds, Apache-2.0).
Out: tests/support/kuberay/KIND.json.gz, the schema of version v1 without its descriptions.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import yaml

TARGET = Path(__file__).parents[1] / "tests" / "support" / "kuberay"


def without_descriptions(schema: Any) -> Any:
    """Return a schema without the texts of its fields; a field of that name stays."""
    if isinstance(schema, list):
        return [without_descriptions(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: without_descriptions(value)
        for key, value in schema.items()
        if not (key == "description" and isinstance(value, str))
    }


def main() -> int:
    """Write one file for each kind."""
    if len(sys.argv) != 2 or not (files := sorted(Path(sys.argv[1]).glob("ray.io_*.yaml"))):
        print("usage: python tools/kuberay_schemas.py FOLDER; it holds ray.io_*.yaml", file=sys.stderr)
        return 2
    TARGET.mkdir(exist_ok=True)
    for file in files:
        definition = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        (served,) = [version for version in definition["spec"]["versions"] if version["name"] == "v1"]
        schema = without_descriptions(served["schema"]["openAPIV3Schema"])
        content = json.dumps(schema, separators=(",", ":"), sort_keys=True).encode()
        kind = definition["spec"]["names"]["kind"]
        (TARGET / f"{kind}.json.gz").write_bytes(gzip.compress(content, 9, mtime=0))
    return 0


if __name__ == "__main__":
    sys.exit(main())

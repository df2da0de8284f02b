"""A folder of limits of unknown origin ends `report` and `plan` in one line or in a page that escapes what it holds."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from support.hostile_folders import TEXTS, VALUES
from support.synthetic_limits import made

from qsgd_ray import cli


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return made(tmp_path_factory.mktemp("limits") / "made", scatter=0.02).path


@pytest.fixture
def folder(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "results" / "made"))


def ends_well(folder: Path, monkeypatch, capsys) -> None:
    """Check that both commands end in one line or in an answer."""
    plan = ["plan", "--from", str(folder), "--qubits", "8"]
    for words in (["report", str(folder)], plan):
        monkeypatch.setattr(sys, "argv", ["qsgd-ray", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        told = capsys.readouterr()
        assert end.value.code in (0, None, 2), words
        assert "\x1b" not in told.out + told.err
        if end.value.code == 2:
            assert re.fullmatch(r"qsgd-ray: [^\n]{1,290}\n", told.err), told.err
        elif words[0] == "report":
            assert "<planted" not in (folder / "limits.html").read_text()


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("name", ["limits.json", "provenance.json"])
def test_a_json_file_of_another_kind(folder, monkeypatch, capsys, name, kind):
    (folder / name).write_bytes(TEXTS[kind])
    ends_well(folder, monkeypatch, capsys)


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("field", ["hardware", "measured", "packages"])
def test_a_provenance_with_a_field_of_another_kind(folder, monkeypatch, capsys, field, kind):
    tree = json.loads((folder / "provenance.json").read_text())
    for changed in (
        tree | {field: VALUES[kind]},
        tree | {field: dict.fromkeys(tree.get(field, {"a": 1}), VALUES[kind])},
    ):
        (folder / "provenance.json").write_text(json.dumps(changed))
        ends_well(folder, monkeypatch, capsys)

"""A folder of unknown origin ends `report` in one line or in a report; nothing outside of it is touched or run."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.hostile_folders import LAUNCHED, changes
from support.synthetic_results import CHOSEN, Run, lost, made, runs

from qsgd_ray import cli
from qsgd_ray.config.trial import choice_key

SECRET = "what-lies-outside-is-nobodys-business"
CHANGES = changes()
# The quick tests take every seventh.
ALL = [
    pytest.param(name, marks=[] if number % 7 == 0 else [pytest.mark.slow], id=name)
    for number, name in enumerate(CHANGES)
]
_watched: list[tuple[str, tuple]] | None = None


def _watch(event: str, arguments: tuple) -> None:
    if _watched is not None and event in _EVENTS:
        _watched.append((event, arguments))


_EVENTS = {"open", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.truncate", "os.chmod"}
_EVENTS |= {"pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "marshal.loads"}


@contextmanager
def watched() -> Iterator[list[tuple[str, tuple]]]:
    """Yield the list to which every file that is opened, changed or run in the block is added."""
    global _watched
    _watched = []
    try:
        yield _watched
    finally:
        _watched = None


@pytest.fixture(scope="module", autouse=True)
def audit_hook():
    """Hear of every file that this process opens; a hook cannot be taken away again, so it is made to be idle."""
    sys.addaudithook(_watch)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A small finished folder, made without Ray."""
    study = made({"adamw": runs([0.9, 0.91]), "sine": [Run(0.95), lost()]}, searched=True)
    folder = study.write(tmp_path_factory.mktemp("original") / "made", {"commit": None, "packages": {"torch": "2"}})

    chosen = {
        arm.name: {
            "search": choice_key(study.study, arm.name),
            "point": {path: CHOSEN[path] for path in arm.spaces()},
        }
        for arm in study.study.arms
    }
    (folder / "chosen.json").write_text(json.dumps(chosen))
    return folder


@pytest.fixture
def folder(original, tmp_path, monkeypatch) -> Path:
    """A copy of the finished folder, beside and below files that are nobody's business."""
    (tmp_path / "outside").mkdir()
    for name in ("outside/secret.txt", "victim.parquet", "results/victim.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(SECRET)
    shutil.copytree(original, tmp_path / "results" / "made")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "results" / "made"


def outside_of(folder: Path) -> dict[str, tuple]:
    """Return every file of the test's own folder that is not in `folder`, with its content."""
    root = folder.parent.parent
    found = {}
    for path, folders, files in os.walk(root):
        if Path(path) == folder.parent:
            folders.remove(folder.name)
        for name in (*folders, *files):
            file = Path(path, name)
            content = os.readlink(file) if file.is_symlink() else file.read_bytes() if file.is_file() else None
            found[str(file)] = (content, file.lstat().st_mtime_ns)
    return found


def report(monkeypatch, capsys, folder: Path) -> tuple[int, str, str, list[tuple[str, tuple]]]:
    monkeypatch.setattr(sys, "argv", ["qsgd-ray", "report", str(folder)])
    capsys.readouterr()
    with watched() as events, pytest.raises(SystemExit) as end:
        cli.main()
    told = capsys.readouterr()
    return int(end.value.code or 0), told.out, told.err, list(events)


def leads_out(events: list[tuple[str, tuple]], folder: Path) -> list[tuple[str, tuple]]:
    """Return the events on files of the test's own folder that lie outside of `folder`."""
    root, inside = str(folder.parent.parent), str(folder)

    def is_out(path: object) -> bool:
        word = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else "\0"
        real = "" if "\0" in word else os.path.realpath(word)
        allowed = real in (inside, str(folder.parent)) or real.startswith(f"{inside}/") or "/lim/" in real
        return real.startswith(f"{root}/") and not allowed and os.path.isfile(real)

    return [(event, args) for event, args in events if any(map(is_out, args[:2]))]


@pytest.mark.parametrize("name", ALL)
def test_a_hostile_folder_ends_in_one_line_or_a_report_and_touches_nothing_else(name, folder, monkeypatch, capsys):
    CHANGES[name](folder)
    before = outside_of(folder)
    code, out, err, events = report(monkeypatch, capsys, folder)
    assert code in (0, 2)
    if code == 2:
        assert re.fullmatch(r"qsgd-ray: [^\n]{1,290}\n", err), err
        assert err.rstrip("\n").isprintable()
    else:
        page = (folder / "report.html").read_text()
        assert page.rstrip().endswith("</html>")
        assert "<planted" not in page
        assert SECRET not in page
    assert SECRET not in out + err
    assert "\x1b" not in out + err
    assert outside_of(folder) == before
    assert not leads_out(events, folder)
    assert not [
        event for event, _ in events if event.startswith(("pickle", "subprocess", "os.sys", "os.exec", "os.pos"))
    ]
    assert not list(folder.parent.parent.rglob(LAUNCHED))


def test_there_are_at_least_200_changes_and_the_folder_itself_is_fine(folder, monkeypatch, capsys):
    assert len(CHANGES) >= 200
    code, out, err, events = report(monkeypatch, capsys, folder)
    assert (code, err) == (0, "")
    assert "Report:" in out
    assert not leads_out(events, folder)


@pytest.mark.parametrize("name", ALL)
def test_status_and_list_of_a_hostile_folder_end_in_one_line_or_a_table_and_write_nothing(
    name, folder, monkeypatch, capsys
):
    CHANGES[name](folder)
    before = outside_of(folder)
    for words in (("status", folder), ("status", folder, "--format", "json"), ("list", folder.parent)):
        monkeypatch.setattr(sys, "argv", ["qsgd-ray", *map(str, words)])
        capsys.readouterr()
        with watched() as events, pytest.raises(SystemExit) as end:
            cli.main()
        told = capsys.readouterr()
        assert end.value.code in (0, None) or (end.value.code == 2 and words[0] == "status")
        assert not end.value.code or re.fullmatch(r"qsgd-ray: [^\n]{1,290}\n", told.err), told.err
        assert (told.out + told.err).replace("\n", "").isprintable()
        assert SECRET not in told.out + told.err
        assert not leads_out(events, folder)
        assert not any(event in ("os.rename", "os.remove", "os.mkdir") for event, _ in events)
    assert outside_of(folder) == before

from pathlib import Path

import pytest

from qsgd_ray.storage.cache import _cache_root, cached_folder


@pytest.fixture(autouse=True)
def _a_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QSGD_RAY_CACHE", str(tmp_path / "cache"))


def test_the_variable_names_the_folder_and_else_the_platform_does(monkeypatch, tmp_path):
    assert _cache_root() == tmp_path / "cache"
    monkeypatch.setenv("QSGD_RAY_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "others"))
    assert _cache_root().name == "qsgd-ray"


def test_a_folder_is_filled_once():
    made = []

    def fill(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("content")

    first, second = cached_folder("things/one", fill), cached_folder("things/one", fill)
    assert first == second == _cache_root() / "things" / "one"
    assert (first / "file").read_text() == "content"
    assert len(made) == 1


def test_what_fails_leaves_nothing():
    def fill(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        cached_folder("things/one", fill)
    assert list((_cache_root() / "things").iterdir()) == []


def test_of_two_at_once_the_first_to_finish_keeps_its_own():
    def fill(folder: Path) -> None:
        (folder / "file").write_text("slow")
        cached_folder("one", fill_quickly)

    def fill_quickly(folder: Path) -> None:
        (folder / "file").write_text("quick")

    folder = cached_folder("one", fill)
    assert (folder / "file").read_text() == "quick"
    assert [path.name for path in _cache_root().iterdir()] == ["one"]


def test_a_place_that_cannot_be_taken_is_told():
    def fill(folder: Path) -> None:
        _cache_root().joinpath("one").write_text("a file in the way")

    with pytest.raises(OSError, match="one"):
        cached_folder("one", fill)

"""No name and no link leads out of a folder of results; anything but a file is told in one line."""

import os
import pickle

import pytest

from qsgd_ray.config import StudyError
from qsgd_ray.storage import Folder


@pytest.fixture
def folder(tmp_path):
    """A folder `inside` with a file, beside a folder `outside` with a file of the same name."""
    for name in ("inside", "outside"):
        (tmp_path / name / "trials").mkdir(parents=True)
        (tmp_path / name / "trials" / "a").write_text(name)
    return Folder(tmp_path / "inside")


USES = {
    "read": lambda folder, name: folder.read(name),
    "put": lambda folder, name: folder.put(name, b"new"),
    "remove": lambda folder, name: folder.remove(name),
    "names": lambda folder, name: folder.names(name, ""),
    "create_folders": lambda folder, name: folder.create_folders(name),
}


def untouched(folder) -> bool:
    outside = folder.path.parent / "outside"
    return [str(p.relative_to(outside)) for p in sorted(outside.rglob("*"))] == ["trials", "trials/a"] and (
        outside / "trials" / "a"
    ).read_text() == "outside"


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize(
    "name", ["../outside/trials/a", "trials/../../outside/trials", "/trials/a", "a\0b", "trials//a"]
)
def test_a_name_that_leads_out_is_refused_in_one_line(folder, use, name):
    with pytest.raises(StudyError, match="allowed: names of files below it") as error:
        use(folder, name)
    assert "\n" not in str(error.value)
    assert untouched(folder)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_folder_that_is_a_link_out_is_not_followed(folder, use):
    (folder.path / "link").symlink_to("../outside/trials")
    name = "link" if use in (USES["names"], USES["create_folders"]) else "link/a"
    with pytest.raises(StudyError, match="a link that leads out of the folder"):
        use(folder, name)
    assert untouched(folder)


def test_a_file_that_is_a_link_out_is_not_read_and_is_replaced_and_removed_as_a_link(folder):
    link = folder.path / "link"
    link.symlink_to("../outside/trials/a")
    with pytest.raises(StudyError, match="a link that leads out of the folder"):
        folder.read("link")
    folder.put("link", b"new")
    assert not link.is_symlink()
    assert folder.read("link") == b"new"
    for target in ("../outside/trials/a", "../outside/trials"):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        folder.remove("link")
        assert not link.is_symlink()
    assert untouched(folder)


def test_links_inside_are_followed_and_the_folder_itself_may_be_one(folder, tmp_path):
    (folder.path / "again").symlink_to("trials/a")
    (tmp_path / "elsewhere").symlink_to("inside")
    assert Folder(tmp_path / "elsewhere").read("again") == b"inside"
    Folder(tmp_path / "elsewhere").put("trials/b", b"")
    assert folder.names("trials", "") == ["a", "b"]


def test_a_link_to_nothing_a_ring_a_pipe_and_a_folder_are_no_files(folder):
    (folder.path / "dangling").symlink_to("nowhere")
    (folder.path / "ring").symlink_to("ring")
    os.mkfifo(folder.path / "pipe")
    for name, said in (
        ("dangling", "a link that leads to no"),
        ("ring", "a link that"),
        ("pipe", "which is no file"),
        ("trials", "which is no file"),
    ):
        with pytest.raises(StudyError, match=said):
            folder.read(name)


def test_a_file_below_a_file_is_missing(folder):
    with pytest.raises(FileNotFoundError):
        folder.read("trials/a/b")
    assert folder.names("trials/a", "") == []


def test_a_folder_can_be_sent(folder):
    assert pickle.loads(pickle.dumps(folder)).read("trials/a") == b"inside"


def test_folders_are_listed_without_hidden_ones_files_and_links(folder, tmp_path):
    (folder.path / ".hidden").mkdir()
    (folder.path / "b").mkdir()
    (folder.path / "file").write_text("")
    (folder.path / "out").symlink_to(tmp_path / "outside")
    assert folder.folders() == ["b", "trials"]
    assert Folder(tmp_path / "none").folders() == []

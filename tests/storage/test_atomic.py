"""A file or a folder is put into place whole, or everything stays as it was."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsgd_ray.storage._atomic import hidden_sibling, replacing


@given(old=st.none() | st.binary(), new=st.binary(), fails=st.booleans())
def test_a_file_is_the_new_one_or_the_old_one_and_nothing_else_is_left(tmp_path_factory, old, new, fails):
    target = tmp_path_factory.mktemp("put") / "file"
    if old is not None:
        target.write_bytes(old)
    try:
        with replacing(target) as partial:
            partial.write_bytes(new)
            assert (target.read_bytes() if target.exists() else None) == old
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    expected = old if fails else new
    assert {path.name: path.read_bytes() for path in target.parent.iterdir()} == (
        {} if expected is None else {"file": expected}
    )


def test_a_folder_is_put_into_place_and_replaces_none_that_has_content(tmp_path):
    def fill(folder: Path, name: str) -> None:
        folder.mkdir()
        (folder / name).touch()

    with replacing(tmp_path / "folder") as partial:
        fill(partial, "first")
    with pytest.raises(OSError, match="folder"), replacing(tmp_path / "folder") as partial:
        fill(partial, "second")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["folder", "folder/first"]


def test_a_block_that_writes_nothing_raises_and_leaves_the_target(tmp_path):
    (tmp_path / "file").write_text("old")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "old"


def test_hidden_names_are_new_each_time_and_lie_beside_the_target():
    names = {hidden_sibling(Path("a/b.txt")) for _ in range(10)}
    assert len(names) == 10
    assert all(name.parent == Path("a") and name.name.startswith(".b.txt.") for name in names)

"""A checkpoint in a folder, and the manifest of one."""

import pytest
from support.saved_parts import ALONE, NAME, TRIAL, save_then_restore


@pytest.fixture
def saved(tmp_path):
    """A folder with one checkpoint, and the tensors that are in it."""
    tensors = save_then_restore(ALONE, tmp_path, None, saves=True)
    return tmp_path / "checkpoints" / TRIAL, tensors


@pytest.fixture(scope="module")
def saved_manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manifest")
    save_then_restore(ALONE, folder, None, saves=True)
    return (folder / "checkpoints" / TRIAL / f"{NAME}.json").read_bytes()

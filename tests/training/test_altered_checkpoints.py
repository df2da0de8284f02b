"""Checkpoints that are torn, altered, planted or made up: nothing in them is run, and each is refused in one line."""

import json
import os
import pickle
import random
import re
import shutil
import struct
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.saved_parts import (
    ALONE,
    NAME,
    TRIAL,
    equal,
    flip,
    make_parts,
    progress_of,
    refused,
    restored,
    save_then_restore,
    whole,
    without_loss,
)
from support.small_study import a_study
from support.stores import BUCKET, client, credentials, s3_server

import qsgd_ray
from qsgd_ray.config import Resources, StudyError
from qsgd_ray.storage import StorageError, storage_at
from qsgd_ray.training._manifest import decode
from qsgd_ray.training.checkpoint_index import require_known_format
from qsgd_ray.training.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures("one_thread")


class Planted:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "run"))


def test_a_planted_pickle_is_never_run(saved, tmp_path):
    folder, _ = saved
    proof = tmp_path / "proof"
    planted = pickle.dumps(Planted(proof))
    for name in (".metadata", "__0_0.distcp", "rank1.safetensors", "data.pkl"):
        (folder / NAME / name).write_bytes(planted)
    assert restored(folder)[0].step == 2
    for target in (folder / NAME / "rank0.safetensors", folder / f"{NAME}.json"):
        original = target.read_bytes()
        target.write_bytes(planted)
        assert "broken checkpoint (" in refused(folder)
        target.write_bytes(original)
    assert not proof.exists()
    pickle.loads(planted)
    assert proof.exists(), "the plant itself does nothing"


def test_no_file_of_the_package_can_unpickle():
    """Not torch.distributed.checkpoint, whose metadata is a pickle, nor torch.load, nor any library of pickles."""
    package = Path(sys.modules["qsgd_ray"].__file__).parent
    unpickling = re.compile(
        r"^\s*(from|import) .*(pickle|shelve|marshal|joblib|distributed\.checkpoint)|torch\.load\(|allow_pickle", re.M
    )
    for path in package.rglob("*.py"):
        assert (found := unpickling.search(path.read_text())) is None, (path, found)


def old_numbers():
    return {"step": 2, "groups": [{}], "world_size": 1, "started_at": "2026-11-29T00:00:00+00:00", "measurements": []}


def test_a_checkpoint_of_torch_s_format_is_refused_with_what_to_do_and_left_alone(saved, tmp_path):
    folder, _ = saved
    (folder / f"{NAME}.json").write_text(json.dumps(old_numbers()))
    (folder / NAME / ".metadata").write_bytes(pickle.dumps(Planted(tmp_path / "proof")))
    for _ in range(3):
        line = refused(folder)
        assert line.endswith(f"remove the folder {folder}, and the trial starts anew")
        assert "earlier version" in line
    assert not (tmp_path / "proof").exists()
    assert not list(folder.glob("*.unread"))
    shutil.rmtree(folder)
    assert restored(folder)[0] is None


def test_a_study_with_checkpoints_of_torch_s_format_is_refused_before_it_starts(saved, tmp_path):
    folder, _ = saved
    study = a_study(resources=Resources(checkpoint_steps=2))
    place = tmp_path / "results" / study.name
    shutil.copytree(folder.parent, place / "checkpoints")
    require_known_format(storage_at(place))  # its own
    (place / "checkpoints" / TRIAL / f"{NAME}.json").write_text(json.dumps(old_numbers()))
    with pytest.raises(StudyError) as error:
        qsgd_ray.run(study, storage=tmp_path / "results", progress=False)
    assert str(error.value).endswith(f"remove the folder {place / 'checkpoints'}, and its trials start anew")
    assert not (place / "trials").exists()


def mutations():
    """Fifty ways to tear or alter a file's bytes: some for the manifest, some for the tensors."""
    yield "empty", lambda content: b""
    yield "torn", lambda content: content[: len(content) // 2]
    yield "one byte short", lambda content: content[:-1]
    yield "one byte long", lambda content: content + b"\0"
    yield "twice", lambda content: content * 2
    yield "shifted", lambda content: content[1:] + content[:1]
    yield "zeroed end", lambda content: content[:-64] + bytes(64)
    yield "swapped halves", lambda content: content[len(content) // 2 :] + content[: len(content) // 2]
    draw = random.Random(7)
    for _ in range(17):
        share = draw.random()
        yield f"byte at {share:.4f}", lambda content, share=share: flip(content, int(share * len(content)))


MUTATIONS = [
    (f"{file}: {label}", file, change)
    for file in (f"{NAME}.json", f"{NAME}/rank0.safetensors")
    for label, change in mutations()
]
assert len(MUTATIONS) == 50


@pytest.mark.parametrize(("file", "change"), [one[1:] for one in MUTATIONS], ids=[one[0] for one in MUTATIONS])
def test_a_torn_or_altered_file_is_refused_in_one_line(saved, file, change):
    folder, tensors = saved
    path = folder / file
    content = path.read_bytes()
    changed = change(content)
    path.write_bytes(changed)
    if path.suffix == ".safetensors" and len(changed) == len(content) and in_header_alone(content, changed):
        # Ranges and shapes come from the manifest: the header is for other readers, and decides nothing here.
        assert equal(whole(restored(folder)[1]), without_loss(tensors))
        return
    assert "broken checkpoint (" in refused(folder)


def in_header_alone(content, changed):
    begin = 8 + struct.unpack("<Q", content[:8])[0]
    return content[begin:] == changed[begin:]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_bit_of_a_manifest_is_found(data, saved_manifest):
    where = data.draw(st.integers(0, len(saved_manifest) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(saved_manifest)
    changed[where] ^= 1 << bit
    with pytest.raises(StorageError):
        decode(bytes(changed))


def test_a_link_a_pipe_or_a_folder_in_a_file_s_place_is_refused(saved, tmp_path):
    folder, _ = saved
    path = folder / NAME / "rank0.safetensors"
    moved = tmp_path / "elsewhere"
    path.rename(moved)
    for plant in (lambda: path.symlink_to(moved), lambda: os.mkfifo(path)):
        plant()
        assert "rank0.safetensors: got no regular file" in refused(folder)
        path.unlink()
        (folder / f"{NAME}.unread").unlink()
    path.mkdir()
    assert "rank0.safetensors: got no regular file" in refused(folder)


def test_a_save_does_not_write_through_a_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    folder = tmp_path / "study" / "checkpoints" / TRIAL / NAME
    folder.mkdir(parents=True)
    (folder / "rank0.safetensors").symlink_to(victim)
    save_then_restore(ALONE, tmp_path / "study", None, saves=True)
    assert victim.read_text() == "mine"
    assert restored(folder.parent)[0].step == 2


def test_an_older_whole_checkpoint_is_used_once_the_newest_has_failed_twice(tmp_path):
    parts = make_parts(ALONE, 1, stepped=True)
    checkpoints = Checkpoints(storage_at(tmp_path), TRIAL, every=1)
    for step in (1, 2):
        checkpoints.save(parts, progress_of(ALONE, step))
    checkpoints.finish()
    folder = tmp_path / "checkpoints" / TRIAL
    path = folder / NAME / "rank0.safetensors"
    path.write_bytes(flip(path.read_bytes(), path.stat().st_size - 1))
    for _ in range(2):
        assert NAME in refused(folder)
    assert restored(folder)[0].step == 1


def test_an_altered_object_of_a_store_is_refused(tmp_path, monkeypatch):
    with s3_server() as endpoint:
        for name, value in credentials(endpoint).items():
            monkeypatch.setenv(name, value)
        store = storage_at(f"s3://{BUCKET}/study")
        parts = make_parts(ALONE, 1, stepped=True)
        checkpoints = Checkpoints(store, TRIAL, every=1)
        checkpoints.save(parts, progress_of(ALONE))
        checkpoints.finish()
        other = make_parts(ALONE, 2, stepped=False)
        assert Checkpoints(store, TRIAL, every=1).restore(other, "cpu").step == 2
        require_known_format(store)
        store.put("checkpoints/old/00000002.json", json.dumps(old_numbers()).encode())
        with pytest.raises(StudyError, match=r"checkpoints: got old/00000002.json of an earlier version"):
            require_known_format(store)
        assert equal(whole(other), whole(parts))
        s3, key = client(endpoint), f"study/checkpoints/{TRIAL}/{NAME}/rank0.safetensors"
        content = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        for changed, line in ((content[:-9], "bytes; allowed: "), (flip(content, len(content) - 1), "has the CRC-32")):
            s3.put_object(Bucket=BUCKET, Key=key, Body=changed)
            with pytest.raises(StorageError, match=line):
                Checkpoints(store, TRIAL, every=9).restore(make_parts(ALONE, 2, stepped=False), "cpu")

"""The format of checkpoints: safetensors and JSON, alike for every number of processes."""

import json
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from support.saved_parts import (
    ALONE,
    NAME,
    TRIAL,
    Task,
    equal,
    make_parts,
    on_processes,
    progress_of,
    read_by_the_library,
    refused,
    without_loss,
)

from qsgd_ray.storage import storage_at
from qsgd_ray.training._manifest import DTYPES, decode, encode
from qsgd_ray.training._tensor_files import copy_of, held_rows, write_share
from qsgd_ray.training.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures("one_thread")


def test_files_are_those_of_the_safetensors_library(saved):
    folder, tensors = saved
    by_library = read_by_the_library(folder, NAME)
    assert equal(
        {name: tensor for name, tensor in by_library.items() if not name.startswith("rank")}, without_loss(tensors)
    )
    assert by_library["rank0.loss_sum"] == 1
    raw = (folder / NAME / "rank0.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    assert length % 8 == 0, "a mapped file has aligned tensors"
    header = json.loads(raw[8 : 8 + length])
    sizes = {code: size for code, (_, size) in DTYPES.items()}
    for name, entry in header.items():
        if name != "__metadata__":
            assert entry["data_offsets"][0] % sizes[entry["dtype"]] == 0


@pytest.mark.parametrize("code", DTYPES)
def test_every_type_comes_back_bit_for_bit(code, tmp_path):
    name, size = DTYPES[code]
    generator = torch.Generator().manual_seed(3)
    raw = torch.randint(0, 2 if code == "BOOL" else 256, (6 * size,), dtype=torch.uint8, generator=generator)
    tensor = raw.view(getattr(torch, name)).view(2, 3)
    share = write_share(storage_at(tmp_path), 0, {"t": copy_of(tensor)})
    assert share.tensors["t"].dtype == code
    there = load_file(tmp_path / "rank0.safetensors")["t"]
    assert there.dtype == tensor.dtype
    assert torch.equal(there.view(torch.uint8), tensor.view(torch.uint8))


def test_a_type_that_has_no_name_counts_as_a_failed_checkpoint(tmp_path, caplog):
    parts = make_parts(ALONE, 1, stepped=True)
    parts.model.register_buffer("odd", torch.zeros(2, dtype=torch.complex64))
    checkpoints = Checkpoints(storage_at(tmp_path), TRIAL, every=1)
    checkpoints.save(parts, progress_of(ALONE))
    checkpoints.finish()
    assert checkpoints.n_failed == 1
    assert "could not be written" in caplog.text


def test_a_tensor_of_any_layout_is_copied_by_rows():
    tensor = torch.arange(24.0).view(2, 3, 2, 2).to(memory_format=torch.channels_last)
    copied = copy_of(tensor)
    assert copied.local.is_contiguous()
    assert torch.equal(copied.local, tensor)
    assert held_rows(torch.tensor(3.0)).local.shape == (1,)


@pytest.fixture(scope="module")
def moves(tmp_path_factory):
    """Checkpoints by one, two and three processes, whole and in shards, each restored by others: folder and results."""
    folder = tmp_path_factory.mktemp("moves")
    two, three = (
        (Task("ddp-2", "ddp", True), Task("fsdp-2", "fsdp", True)),
        (
            Task("ddp-3", "ddp", True),
            Task("fsdp-3", "fsdp", True),
        ),
    )
    one = (Task("ddp-1", "ddp", True),)

    def others(tasks):
        return [Task(task.folder, sharding, False) for task in tasks for sharding in ("ddp", "fsdp")]

    results = on_processes(1, folder, 0, [*one])
    results += on_processes(2, folder, 1, [*two, *others((*one, *two))])
    results += on_processes(3, folder, 2, [*three, *others((*one, *two, *three))])
    results += on_processes(2, folder, 3, others(three))
    results += on_processes(1, folder, 4, [Task(task.folder, "ddp", False) for task in (*one, *two, *three)])
    return folder, results


@pytest.mark.slow
def test_what_some_processes_write_any_others_read_bit_for_bit(moves):
    """The twin gathers all files in one process, by the library of safetensors."""
    folder, results = moves
    expected = without_loss(results[0][1])
    for name in {task.folder for task, _ in results}:
        by_library = read_by_the_library(folder / name / "checkpoints" / TRIAL, NAME)
        assert equal({key: tensor for key, tensor in by_library.items() if not key.startswith("rank")}, expected), name
    for task, tensors in results:
        assert equal(without_loss(tensors), expected), task
    # Each process has its own sum of losses, from 1 on; others go on with their mean.
    alone = results[-5:]
    assert [tensors["loss_sum"].item() for _, tensors in alone] == [1.0, 1.5, 1.5, 2.0, 2.0]


@pytest.mark.slow
def test_shards_cover_a_tensor_once_and_each_process_has_its_own_file(moves):
    trial = moves[0] / "fsdp-3" / "checkpoints" / TRIAL
    manifest = decode((trial / f"{NAME}.json").read_bytes())
    assert sorted(path.name for path in (trial / NAME).iterdir()) == [f"rank{n}.safetensors" for n in range(3)]
    assert rows(manifest.tensors["model.seven"]) == [(0, 0, 3), (1, 3, 6), (2, 6, 7)]
    assert rows(manifest.tensors["model.one"]) == [(0, 0, 1)]
    assert manifest.tensors["model.empty"].shards == ()
    (trial / NAME / "rank1.safetensors").write_bytes(b"")
    assert "rank1.safetensors: got 0 bytes; allowed: " in refused(trial)


def rows(tensor):
    return [(shard.rank, shard.start, shard.stop) for shard in tensor.shards]


@settings(max_examples=200, deadline=None)
@given(value=st.floats(allow_nan=False))
def test_a_number_comes_back_bit_for_bit(value, saved_manifest):
    manifest = decode(saved_manifest).model_copy(update={"wall_s": value, "model_flops": -value})
    again = decode(encode(manifest))
    assert struct.pack("<dd", again.wall_s, again.model_flops) == struct.pack("<dd", value, -value)

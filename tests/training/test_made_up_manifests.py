"""Manifests that somebody has made up and given a checksum that is right: each is refused in one line."""

import json
import zlib

import pytest
import torch
from support.saved_parts import (
    NAME,
    refused,
)

from qsgd_ray.training import _manifest as manifests

pytestmark = pytest.mark.usefixtures("one_thread")


def resealed(folder, change):
    """Change a manifest and give it a checksum that is right."""
    path = folder / f"{NAME}.json"
    tree = json.loads(path.read_bytes())["checkpoint"]
    change(tree)
    digest = manifests.hashlib.sha256(manifests._text(tree)).hexdigest()
    path.write_bytes(manifests._text({"checkpoint": tree, "sha256": digest}))


def put(path, value):
    *words, last = path.split("/")

    def change(tree):
        for word in words:
            tree = tree[int(word) if isinstance(tree, list) else word]
        tree[int(last) if isinstance(tree, list) else last] = value

    return change


def drop(path):
    *words, last = path.split("/")

    def change(tree):
        for word in words:
            tree = tree[word]
        del tree[last]

    return change


SEVEN = "tensors/model.seven"
# A manifest that someone has changed and given the right checksum: what changed, and a part of the line.
HOSTILE = {
    "unknown field": (put("path", "../../x"), "path: got '../../x'; allowed: no field of this name"),
    "another version": (put("version", 2), "version: got 2; allowed: 1"),
    "a missing count": (drop("n_tokens"), "n_tokens: got nothing; allowed: a value"),
    "a negative count": (put("n_tokens", -1), "n_tokens: got -1"),
    "a text for a count": (put("step", "2"), "step: got '2'"),
    "true for a count": (put("step", True), "step: got True"),
    "a fraction for a count": (put("n_tokens", 1.5), "n_tokens: got 1.5"),
    "another step": (put("step", 3), "step: got 3; allowed: 2, as the file is named"),
    "no processes": (put("world_size", 0), "world_size: got 0"),
    "a thousand million processes": (put("world_size", 10**9), "files: got 1; allowed: 1000000000"),
    "no time": (put("started_at", "yesterday"), "started_at: got 'yesterday'"),
    "a time without its zone": (put("started_at", "2026-11-30T00:00:00"), "a time with its zone"),
    "a measurement of nothing": (put("measurements", [{}]), "measurements.0.epoch"),
    "measurements out of order": (
        put(
            "measurements",
            [
                dict.fromkeys(("epoch", "step", "n_circuits"), 2)
                | dict.fromkeys(
                    ("wall_s", "circuit_wait_s", "train_loss", "validation_loss", "validation_accuracy"), 0.5
                )
                | dict.fromkeys(
                    (
                        "perturbation_norm",
                        "adam_step_norm",
                        "circuit_s",
                        "evaluation_s",
                        "n_tokens",
                        "model_flops",
                        "peak_flops_per_s",
                        "peak_memory_bytes",
                    )
                )
            ],
        ),
        "one for each epoch, in their order",
    ),
    "parameters in a group": (put("groups/0/params", 1), "groups.0: got 'params' unknown"),
    "a group without a rate": (lambda tree: tree["groups"][0].pop("lr"), "groups.0: got 'lr' missing"),
    "a text in a group": (put("groups/0/lr", "x"), "groups.0.lr"),
    "true for a rate": (put("groups/0/lr", True), "groups.0.lr: got True"),
    "two groups": (lambda tree: tree["groups"].append(tree["groups"][0]), "groups: got 2 values; allowed: 1"),
    "no schedule": (put("schedules", []), "schedules: got 0 values; allowed: 1"),
    "an attribute of a schedule": (put("schedules/0/optimizer", 1), "schedules.0: got 'optimizer' unknown"),
    "a text in a schedule": (put("schedules/0/last_epoch", "x"), "schedules.0.last_epoch: got 'x'"),
    "a list in a schedule": (put("schedules/0/_last_lr", [0.1, 0.2]), "schedules.0._last_lr: got 2 values; allowed: 1"),
    "a scaler": (put("scaler", {"scale": 1.0}), "scaler: got 'scale' unknown"),
    "no telemetry": (put("telemetry", None), "telemetry: got none"),
    "telemetry of five groups": (
        put("telemetry/means/n_of_group", [1.0] * 5),
        "telemetry.means",
    ),
    "telemetry of one norm": (put("telemetry/means/model", [1.0]), "telemetry.means.model"),
    "a tensor more": (
        lambda tree: tree["tensors"].update({"../x": tree["tensors"]["model.one"]}),
        "tensors: got '../x'",
    ),
    "a tensor less": (drop("tensors/model.seven"), "model.seven: got no tensor of this name"),
    "a moment less": (drop("tensors/optimizer.seven.exp_avg"), "optimizer.seven.exp_avg: got no tensor"),
    "no generator": (drop("tensors/rank0.generator"), "rank0.generator: got no tensor"),
    "an unknown type": (put(f"{SEVEN}/dtype", "object"), "dtype: got 'object'"),
    "another type": (put(f"{SEVEN}/dtype", "I32"), "model.seven: got the type I32; allowed: F32"),
    "another shape": (put(f"{SEVEN}/shape", [3, 7]), "model.seven"),
    "a shape of the same rows": (
        put(f"{SEVEN}/shape", [7, 1, 3]),
        "model.seven: got the shape [7, 1, 3]; allowed: [7, 3]",
    ),
    "a huge shape": (put(f"{SEVEN}/shape", [7, 2**60]), "bytes beyond the end of rank0.safetensors"),
    "a negative shape": (put(f"{SEVEN}/shape", [-7, 3]), "shape.0: got -7"),
    "no shard": (put(f"{SEVEN}/shards", []), "model.seven: got 0 rows; allowed: 7"),
    "a shard of another process": (put(f"{SEVEN}/shards/0/rank", 5), "model.seven: got rank 5; allowed: below 1"),
    "a path for a process": (put(f"{SEVEN}/shards/0/rank", "../../etc"), "rank: got '../../etc'"),
    "rows left out": (put(f"{SEVEN}/shards/0/start", 1), "model.seven: got rows 1 to 7; allowed: from 0 on"),
    "rows too many": (put(f"{SEVEN}/shards/0/stop", 8), "model.seven: got 8 rows; allowed: 7"),
    "an offset beyond the end": (put(f"{SEVEN}/shards/0/offset", 10**12), "bytes beyond the end"),
    "an offset elsewhere": (put(f"{SEVEN}/shards/0/offset", 8), "model.seven has the CRC-32"),
    "a file of another size": (put("files", [10**6]), "rank0.safetensors: got "),
    "two files": (put("files", [1, 1]), "files: got 2; allowed: 1, one a process"),
    "a generator of other bytes": (
        lambda tree: tree["tensors"]["rank0.generator"].update(shape=[8], shards=[]),
        "rank0.generator",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_manifest_that_was_made_up_is_refused_in_one_line(case, saved):
    folder, _ = saved
    change, line = HOSTILE[case]
    resealed(folder, change)
    assert line in refused(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"3",
        b'"x"',
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b"1" * 5_000,
        b"{}",
        b'{"checkpoint": null}',
    ],
)
def test_json_of_anything_else_is_refused_in_one_line(content, saved):
    folder, _ = saved
    (folder / f"{NAME}.json").write_bytes(content)
    assert "broken checkpoint (" in refused(folder)


def test_a_generator_s_state_is_checked_before_it_is_set(saved):
    """A checksum that was made up with the bytes says nothing about them."""
    folder, _ = saved
    before = torch.get_rng_state()
    path = folder / NAME / "rank0.safetensors"

    def forged(tree):
        (shard,) = tree["tensors"]["rank0.generator"]["shards"]
        zeros = bytes(shard["stop"])
        content = bytearray(path.read_bytes())
        content[shard["offset"] : shard["offset"] + len(zeros)] = b"\xff" * len(zeros)
        path.write_bytes(content)
        shard["crc32"] = zlib.crc32(b"\xff" * len(zeros))

    resealed(folder, forged)
    refused(folder)
    assert torch.equal(torch.get_rng_state(), before)

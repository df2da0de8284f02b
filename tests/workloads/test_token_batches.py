import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.small_tasks import some_problems

from qsgd_ray.config import QuantumAttention, StudyError
from qsgd_ray.config.workload import ChatFormat
from qsgd_ray.models.pretrained import load_pretrained, load_tokenizer
from qsgd_ray.workloads._chat import IGNORED, Example, encode
from qsgd_ray.workloads._token_batches import TokenBatches, _collate, _pack

pytest.importorskip("transformers")
pytestmark = pytest.mark.usefixtures("one_thread")
TOKENIZER = load_tokenizer("tiny")
EXAMPLES = encode(some_problems(30), TOKENIZER, ChatFormat()).examples
PAD = TOKENIZER.pad_token_id


def batches(**options):
    return TokenBatches(EXAMPLES, **{"batch_size": 4, "pad_id": PAD} | options)


def rows(step):
    """The sequences of a step without their padding, as ids and labels."""
    found = []
    for batch in step.micro_batches:
        for ids, labels, mask in zip(batch.input_ids, batch.labels, batch.attention_mask, strict=True):
            n = int(mask.sum())
            assert mask.tolist() == [1] * n + [0] * (len(mask) - n)
            assert (ids[n:] == PAD).all()
            assert (labels[n:] == IGNORED).all()
            found.append((tuple(ids[:n].tolist()), tuple(labels[:n].tolist())))
    return found


def counted(found):
    return [row for row in found if any(label != IGNORED for label in row[1])]


@settings(max_examples=30)
@given(
    world_size=st.integers(1, 6),
    micro=st.sampled_from([None, 1, 2, 5]),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 9),
)
def test_the_shards_of_the_ranks_make_the_steps_of_one_process(world_size, micro, seed, epoch):
    made = batches(batch_size=6, micro_batch_size=micro)
    whole = list(batches(batch_size=6).steps(seed, epoch))
    shards = [list(made.steps(seed, epoch, rank, world_size)) for rank in range(world_size)]
    assert len(whole) == made.steps_per_epoch == 5
    for n, step in enumerate(whole):
        for rank in range(world_size):
            assert counted(rows(shards[rank][n])) == rows(step)[rank::world_size]
            assert len(shards[rank][n].micro_batches) == len(shards[0][n].micro_batches), "ranks call models together"
            assert shards[rank][n].n_tokens == step.n_tokens
            assert all(len(batch.input_ids) <= (micro or 6) for batch in shards[rank][n].micro_batches)
        assert step.n_tokens == sum(label != IGNORED for _, labels in rows(step) for label in labels)


def test_an_epoch_repeats_no_example_and_leaves_out_what_fills_no_step():
    seen = [ids for step in batches().steps(0, 0) for ids, _ in rows(step)]
    assert len(seen) == len(set(seen)) == 28


def test_the_order_is_a_function_of_seed_and_epoch_and_any_step_can_be_the_first():
    def order(seed, epoch, start=0):
        return [rows(step) for step in batches().steps(seed, epoch, start=start)]

    whole = order(1, 0)
    torch.manual_seed(5)
    assert order(1, 0) == whole
    assert whole not in (order(2, 0), order(1, 1))
    assert all(order(1, 0, start) == whole[start:] for start in range(8))


def test_batches_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    list(batches().steps(3, 0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("world_size", [1, 2, 7, 40])
def test_the_shares_of_the_ranks_are_all_examples_once(world_size):
    shares = [list(batches().share(rank, world_size, batch_size=3)) for rank in range(world_size)]
    assert {len(share) for share in shares} == {len(shares[0])}, "ranks call models together"
    found = [batch for share in shares for batch in share if (batch.labels != IGNORED).any()]
    lengths = sorted(int(n) for batch in found for n in batch.attention_mask.sum(dim=1))
    assert lengths == sorted(len(example.ids) for example in EXAMPLES)
    assert all(len(batch.input_ids) <= 3 for batch in found)


@given(lengths=st.lists(st.integers(1, 9), max_size=20), size=st.integers(9, 30))
def test_packing_keeps_order_and_size(lengths, size):
    examples = [Example(torch.arange(n), torch.arange(n)) for n in lengths]
    packed = _pack(examples, size)
    assert [id(one) for sequence in packed for one in sequence] == [id(one) for one in examples]
    totals = [sum(len(one.ids) for one in sequence) for sequence in packed]
    assert all(total <= size for total in totals)
    # No sequence would have had room for the first example of the next one.
    assert all(total + len(after[0].ids) > size for total, after in zip(totals, packed[1:], strict=False))


@pytest.mark.parametrize("attention", [None, QuantumAttention(n_qubits=2, depth=1)])
@pytest.mark.parametrize("packed", [False, True])
def test_in_a_batch_every_example_has_the_logits_that_it_has_alone(packed, attention):
    model = load_pretrained("tiny", attention=attention).model.double().eval()
    sequences = _pack(EXAMPLES[:12], 300) if packed else [[one] for one in EXAMPLES[:12]]
    batch = _collate(sequences, pad_id=PAD, packed=packed)
    assert (len(batch.input_ids) < 12) == packed
    with torch.no_grad():
        together = model(batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids).logits
        for row, sequence in enumerate(sequences):
            at = 0
            for example in sequence:
                alone = model(example.ids[None]).logits[0]
                torch.testing.assert_close(together[row, at : at + len(alone)], alone, rtol=1e-9, atol=1e-10)
                at += len(alone)
    assert together.isfinite().all()


def test_what_one_example_holds_changes_nothing_in_its_neighbour():
    model = load_pretrained("tiny").model.eval()
    other = Example(EXAMPLES[0].ids.flip(0), EXAMPLES[0].labels)
    n = len(other.ids)

    def neighbour(first):
        batch = _collate([[first, EXAMPLES[1]]], pad_id=PAD, packed=True)
        with torch.no_grad():
            return model(batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids).logits[
                0, n:
            ]

    assert torch.equal(neighbour(EXAMPLES[0]), neighbour(other))


def test_packed_no_example_predicts_the_start_of_the_next():
    examples = encode(some_problems(5), TOKENIZER, ChatFormat(loss_on="all")).examples
    batch = _collate(_pack(examples, 500), pad_id=PAD, packed=True)
    starts = (batch.position_ids == 0) & (batch.input_ids != PAD)
    assert int(starts.sum()) == 5
    assert (batch.labels[starts] == IGNORED).all()


def test_predicting_places_are_those_before_a_label():
    batch = _collate([[one] for one in EXAMPLES[:5]], pad_id=PAD, packed=False)
    wanted = {at - 1 for row in batch.labels.tolist() for at, label in enumerate(row) if label != IGNORED}
    assert batch.predicting.tolist() == sorted(wanted)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: batches(batch_size=31), "batch_size: got 31; allowed: 1 to 30"),
        (lambda: batches(batch_size=0), "batch_size: got 0; allowed: 1 to 30"),
        (lambda: batches(micro_batch_size=0), "micro_batch_size: got 0; allowed: a whole number >= 1, or None"),
        (lambda: batches(pack_to=5), "pack_to: got 5; allowed: at least"),
        (lambda: batches().steps(0, 0, 0, 9), "world_size: got 9; allowed: at most batch_size"),
        (lambda: batches().steps(0, 0, 2, 2), "rank: got 2 of world_size 2; allowed: 0 <= rank < world_size"),
        (lambda: batches().share(-1, 2), "rank: got -1 of world_size 2"),
        (lambda: batches().steps(0, 0, start=8), "start: got 8; allowed: 0 to 7"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(made, message):
    with pytest.raises(StudyError, match=message):
        made()

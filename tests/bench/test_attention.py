"""The bench of attention: rows of every case, a wrong engine is an error, no compiler a note, threads are put back."""

import pytest
import torch

from qsgd_ray.bench import attention
from qsgd_ray.bench.attention import _all_scores, _training_step, cases
from qsgd_ray.bench.timing import interleaved
from qsgd_ray.circuits.fourier import _fused as compiled

TINY_S = 1e-4
SCORED = ["series", "series, compiled", "every score simulated"]
TRAINED = list(attention._ATTENTIONS)


@pytest.fixture
def tiny(monkeypatch):
    """Few and short sequences, and a compiler that gives back what it is given: compiling takes seconds."""
    monkeypatch.setattr(attention, "_BATCH", 2)
    monkeypatch.setattr(attention, "TOKENS_SCORED", 3)
    monkeypatch.setattr(attention, "TOKENS_SCORED_QUICKLY", 2)
    monkeypatch.setattr(attention, "_TOKENS_TRAINED", (3, 4))
    monkeypatch.setattr(torch, "compile", lambda function: function)
    monkeypatch.setattr(compiled, "_kernels", {})


@pytest.fixture
def no_compiler(tiny, monkeypatch):
    def broken(*_):
        raise RuntimeError("no C++ compiler\nand a long story")

    monkeypatch.setattr(torch, "compile", lambda function: broken)


def of_case(rows):
    found = {}
    for row in rows:
        found.setdefault(row.case, []).append(row)
    return found


def test_a_run_has_rows_of_every_case(tiny):
    found = of_case([row for rows in cases(TINY_S) for row in rows])
    assert {case: [row.engine for row in rows] for case, rows in found.items()} == {
        "Phi of 72 scores, 4 qubits, depth 2, float64": SCORED,
        "Phi of 72 scores, 4 qubits, depth 2, float32": SCORED,
        "training step, 3 tokens, batch 2, 2 layers, float32, one thread": TRAINED,
        "training step, 4 tokens, batch 2, 2 layers, float32, one thread": TRAINED,
    }
    for rows in found.values():
        assert rows[0].ratio == 1.0
        assert all(row.rounds >= 1 and 0 < row.fastest_us <= row.median_us <= row.slowest_us for row in rows)
        assert {row.per for row in rows} == {"call" if "Phi" in rows[0].case else "step"}


def test_a_quick_run_has_fewer_scores_and_nothing_compiled(tiny, monkeypatch):
    monkeypatch.delattr(torch, "compile")
    found = of_case([row for rows in cases(TINY_S, quick=True) for row in rows])
    assert [case.split(",")[0] for case in found] == ["Phi of 32 scores"] * 2 + ["training step"] * 2
    assert [len(rows) for rows in found.values()] == [2, 2, 4, 4]
    assert not any("compiled" in row.engine for rows in found.values() for row in rows)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_notes_count_the_circuits_and_tell_the_error_against_the_float64_simulation(tiny, dtype, bound):
    rows = _all_scores(dtype, 3, TINY_S)
    told = [row.note.rpartition("error ") for row in rows]
    assert [circuits for circuits, *_ in told] == ["9 circuits, ", "9 circuits, ", ""]
    errors = [float(error) for *_, error in told]
    assert all(error < bound for error in errors)
    assert (rows[2].note == "error 0") == (dtype == torch.float64), "what the others are compared with"


@pytest.mark.parametrize("amount", [1e-4, float("nan")])
def test_a_wrong_response_is_an_error_that_names_the_engine(tiny, monkeypatch, amount):
    right = attention._simulated

    def wrong_in_single(angles, scores):
        return right(angles, scores) + (amount if angles.dtype == torch.float32 else 0)

    monkeypatch.setattr(attention, "_simulated", wrong_in_single)
    with pytest.raises(
        AssertionError, match=r"every score simulated differs from the float64 simulation by (1\.0e-04|nan); allo"
    ):
        _all_scores(torch.float32, 3, TINY_S)


def test_without_a_compiler_its_engines_are_rows_with_a_note_and_nulls(no_compiler):
    for rows in (_all_scores(torch.float64, 2, TINY_S), _training_step(3, TINY_S)):
        *others, compiled = rows
        assert compiled.engine.endswith("compiled")
        assert (compiled.rounds, compiled.median_us, compiled.ratio) == (0, None, None)
        assert compiled.note == "torch.compile has no compiler: no C++ compiler"
        assert all(row.median_us > 0 for row in others)


def test_a_training_step_has_one_thread_and_puts_threads_and_generator_back(tiny, monkeypatch):
    seen = []

    def watched(calls, budget_s, most_rounds):
        seen.append((torch.get_num_threads(), budget_s, most_rounds))
        return interleaved(calls, budget_s, most_rounds)

    monkeypatch.setattr(attention, "interleaved", watched)
    before, state = torch.get_num_threads(), torch.get_rng_state()
    try:
        torch.set_num_threads(2)
        _training_step(3, TINY_S, with_compiled=False)
        assert torch.get_num_threads() == 2
        monkeypatch.setattr(attention, "_step_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            _training_step(3, TINY_S)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert torch.equal(torch.get_rng_state(), state)
    assert seen == [(1, 4 * TINY_S, 240)]


def test_a_step_trains_every_parameter_of_the_model(tiny):
    model = attention.quantum_classifier(attention.config.Transformer(), 12, 3, 2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    attention._step_of(model, torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([0, 1]))()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))

"""The bench of optimizers: the shapes of the model, rows and notes of every case; a wrong optimizer is an error."""

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from qsgd_ray import cli
from qsgd_ray.bench import optimizer as bench
from qsgd_ray.bench.optimizer import (
    _AGAINST,
    _CASES,
    _FUSED,
    _SMALL,
    _SMOLLM2,
    _shapes,
    _some_parameters,
    _steps,
    cases,
)
from qsgd_ray.optimizer import SuperpositionalAdamW

TINY_S = 1e-4
TINY = _SMALL._replace(vocabulary=32, hidden=8, intermediate=16, key_value=8)
OURS = {engine: settings for case in _CASES.values() for engine, settings in case.items()}
NOTE = re.compile(r"peak (\d+\.\d\d)x, (\S+) ([GM]B)")


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(bench, "_SMALL", TINY)


@pytest.fixture
def parameters():
    return _some_parameters(TINY)


def copies(tensors):
    return [tensor.detach().clone() for tensor in tensors]


def same(some, others):
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def test_the_shapes_are_those_of_smollm2_135m():
    found = _shapes(_SMOLLM2)
    assert sum(torch.Size(shape).numel() for shape in found.values()) == 134_515_008
    assert len(found) == 1 + 30 * 9 + 1
    assert found["model.embed_tokens.weight"] == (49_152, 576)
    assert found["model.layers.29.self_attn.v_proj.weight"] == (192, 576)
    assert found["model.layers.0.mlp.down_proj.weight"] == (576, 1_536)


def test_names_and_shapes_are_what_transformers_makes_of_them():
    transformers = pytest.importorskip("transformers")
    settings = transformers.LlamaConfig(
        vocab_size=_SMALL.vocabulary,
        hidden_size=_SMALL.hidden,
        num_hidden_layers=_SMALL.n_layers,
        intermediate_size=_SMALL.intermediate,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(settings)
    found = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert list(found.items()) == list(_shapes(_SMALL).items())


def test_parameters_and_gradients_are_the_same_every_time():
    once, again = _some_parameters(TINY), _some_parameters(TINY)
    assert [tuple(parameter.shape) for parameter in once] == list(_shapes(TINY).values())
    assert same(once, again)
    assert same([parameter.grad for parameter in once], [parameter.grad for parameter in again])
    assert {parameter.dtype for parameter in once} == {torch.float32}
    assert float(torch.cat([parameter.grad.view(-1) for parameter in once]).std()) == pytest.approx(1e-3, rel=0.1)


def test_a_quick_run_has_rows_of_every_case_with_fused_adamw_first():
    found = {}
    for row in [row for rows in cases(TINY_S, quick=True) for row in rows]:
        found.setdefault(row.case, []).append(row)
    assert [case.rpartition(": ")[2] for case in found] == list(_CASES)
    assert all(case.startswith("a small Llama, 147,776 parameters, 20 tensors, float32: ") for case in found)
    alone, *others = ([row.engine for row in rows] for rows in found.values())
    assert alone == list(_AGAINST)
    assert others == [[_FUSED, bench._AGAIN, *ours] for ours in _CASES.values() if ours]
    for rows in found.values():
        assert rows[0].ratio == 1.0
        for row in rows:
            assert row.per == "step"
            assert row.rounds >= 1
            assert 0 < row.fastest_us <= row.median_us <= row.slowest_us


def test_the_cases_hold_every_scope_with_every_placement():
    pairs = {(own["scope"], own.get("placement", "update")) for own in OURS.values()}
    assert pairs == {(scope, place) for scope in ("model", "tensor", "all") for place in ("update", "moments")}
    assert {"scope": "all", "direction": "preconditioned"} in OURS.values()
    assert {"scope": "tensor", "source": "circuit"} in OURS.values()


def test_without_quick_it_is_the_whole_model_with_the_rounds_of_four_budgets(tiny, monkeypatch):
    budgets = []

    def watched(calls, budget_s):
        budgets.append(budget_s)
        return {engine: [1.0] for engine in calls}

    monkeypatch.setattr(bench, "interleaved", watched)
    monkeypatch.setattr(bench, "_SMOLLM2", TINY._replace(name="all of it"))
    found = [row for rows in cases(0.5) for row in rows]
    assert {row.case.split(",")[0] for row in found} == {"all of it"}
    assert budgets == [2.0] * len(_CASES)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc of Linux")
def test_a_note_tells_the_peak_and_its_multiple_of_fused_adamws(parameters, monkeypatch):
    resident = {"VmRSS": iter([100, 300]), "VmHWM": iter([600, 1_400])}
    monkeypatch.setattr(bench, "_status_bytes", lambda field: next(resident[field]) * 10**6)
    lasting = 2e-6 * sum(parameter.nbytes for parameter in parameters)
    first, second = _steps("c", parameters, {_FUSED: _AGAINST[_FUSED], "ours": {"scope": "all"}}, TINY_S)
    assert first.note == f"peak 1.00x, {lasting + 500:.3g} MB"
    assert second.note == f"peak {(lasting + 1_100) / (lasting + 500):.2f}x, {(lasting + 1_100) / 1e3:.3g} GB"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc of Linux")
def test_the_peak_of_a_step_is_what_it_takes_at_once():
    """16 million parameters: 64 MB each for parameters, gradients and two moments, and more where all have a Q."""
    parameter = torch.zeros(16_000_000, requires_grad=True)
    parameter.grad = torch.full_like(parameter, 1e-3)
    found = _steps("c", [parameter], {_FUSED: _AGAINST[_FUSED], **_AGAINST, "ours": {"scope": "all"}}, 0.0)
    megabytes = {}
    for row in found:
        _, size, unit = NOTE.fullmatch(row.note).groups()
        megabytes[row.engine] = float(size) * {"MB": 1, "GB": 1_000}[unit]
    assert megabytes[_FUSED] == pytest.approx(256, abs=16)
    assert megabytes["AdamW, for-loop"] >= 256 + 64 - 16, "a temporary as long as the parameters"
    assert megabytes["ours"] >= 256 - 16


@pytest.mark.parametrize("missing", ["/proc/self/status", "/proc/self/clear_refs"])
def test_where_the_peak_cannot_be_measured_there_is_no_note(parameters, monkeypatch, missing):
    def path(name):
        return Path("/dev/null/absent" if name == missing else name)

    monkeypatch.setattr(bench, "Path", path)
    (row,) = _steps("c", parameters, {_FUSED: _AGAINST[_FUSED]}, TINY_S)
    assert row.note is None
    assert row.median_us > 0


def test_another_c_library_gives_nothing_back(monkeypatch):
    monkeypatch.setattr(bench.ctypes, "CDLL", lambda name: object())
    bench._give_back()


def test_a_field_that_proc_does_not_tell_is_none():
    assert bench._status_bytes("VmOfAnotherKernel") is None


def test_timed_steps_leave_parameters_and_gradients_as_they_are(parameters):
    before, gradients = copies(parameters), copies(parameter.grad for parameter in parameters)
    _steps("c", parameters, {_FUSED: _AGAINST[_FUSED], **_AGAINST, **OURS}, TINY_S)
    assert same(parameters, before)
    assert same([parameter.grad for parameter in parameters], gradients)


def test_a_circuit_asked_a_step_ahead_is_the_one_of_the_next_step(parameters):
    """Other optimizers of the case step in between."""
    ours = bench._made(OURS["circuit, tensor, update"], parameters, bench._LEARNING_RATE)
    other = bench._made(_AGAINST[_FUSED], parameters, bench._LEARNING_RATE)
    asked = []
    for _ in range(3):
        ours.step()
        other.step()
        asked.append(ours.telemetry().n_circuits)
    assert asked == [(2 + n) * len(parameters) for n in range(3)]


class Wrong(SuperpositionalAdamW):
    """Moves the last coordinate of the last parameter a little too far, wherever `amount` says so."""

    amount = staticmethod(lambda lambda_: 0.0)

    def step(self, closure=None):
        super().step(closure)
        with torch.no_grad():
            self.param_groups[-1]["params"][-1].view(-1)[-1] += self.amount(self.defaults["lambda_"])


@pytest.mark.parametrize("engine", OURS)
@pytest.mark.parametrize("amount", [1e-6, float("nan")])
def test_a_wrong_step_is_an_error_that_names_the_engine(parameters, monkeypatch, engine, amount):
    before = copies(parameters)
    monkeypatch.setattr(bench, "SuperpositionalAdamW", Wrong)
    _steps("c", parameters, {_FUSED: _AGAINST[_FUSED], engine: OURS[engine]}, TINY_S)
    monkeypatch.setattr(Wrong, "amount", staticmethod(lambda lambda_: amount if lambda_ else 0.0))
    with pytest.raises(AssertionError, match=rf"{engine} differs from a naive step in float64 by (1\.0e-06|nan); allo"):
        _steps("c", parameters, {_FUSED: _AGAINST[_FUSED], engine: OURS[engine]}, TINY_S)
    assert same(parameters, before)


def test_a_bit_off_at_lambda_0_is_an_error(parameters, monkeypatch):
    monkeypatch.setattr(bench, "SuperpositionalAdamW", Wrong)
    monkeypatch.setattr(Wrong, "amount", staticmethod(lambda lambda_: 0.0 if lambda_ else 1e-8))
    with pytest.raises(AssertionError, match="sine, all, update at lambda 0 differs from AdamW, fused"):
        _steps("c", parameters, {"sine, all, update": OURS["sine, all, update"]}, TINY_S)


def test_a_changed_gradient_is_an_error(parameters, monkeypatch):
    class Changing(SuperpositionalAdamW):
        def step(self, closure=None):
            super().step(closure)
            for parameter in self.param_groups[0]["params"]:
                parameter.grad *= 2

    monkeypatch.setattr(bench, "SuperpositionalAdamW", Changing)
    with pytest.raises(AssertionError, match="sine, all, update leaves other gradients than it was given"):
        _steps("c", parameters, {"sine, all, update": OURS["sine, all, update"]}, TINY_S)


@pytest.mark.parametrize("engine", OURS)
def test_the_check_sees_a_perturbation_that_is_left_out(parameters, engine):
    edges = bench._edges(parameters), bench._edges([parameter.grad for parameter in parameters])
    shift = bench._naive_step(OURS[engine], *edges) - bench._naive_step({}, *edges)
    assert float(shift.abs().max()) > 100 * bench._TOLERANCE


def test_the_command_prints_its_tables_and_writes_its_rows(tiny, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(
        "sys.argv", ["qsgd-ray", "bench", "optimizer", "--quick", "--budget", "0", "--storage", str(tmp_path)]
    )
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    told = capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    rows = pq.read_table(path).to_pylist()
    assert path.name.startswith("optimizer-")
    assert told.splitlines()[-1] == f"{len(rows)} rows: {path}"
    assert {row["engine"] for row in rows} == {*_AGAINST, bench._AGAIN, *OURS}
    assert all(row["engine"] in told for row in rows)

"""The text classifier: its naive twin, torch's own layer, dropout, and quantum attention in its layers."""

import pytest
import torch
from support.reference_attention import naive_attention
from torch.nn import functional as F

from qsgd_ray.circuits.fourier import series
from qsgd_ray.config import Transformer
from qsgd_ray.models.attention import QuantumAttention
from qsgd_ray.models.transformer import TransformerClassifier, _dropout, _softmax_attention, quantum_classifier

SMALL = Transformer(d_model=8, n_heads=2, d_feedforward=12, n_layers=2)


def a_model(settings=SMALL, **fields):
    torch.manual_seed(3)
    return TransformerClassifier(settings, vocabulary=10, length=6, n_classes=3, **fields)


def some_tokens(n=4):
    return torch.randint(10, (n, 6), generator=torch.Generator().manual_seed(5))


def heads(dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(2, 3, 5, 4, dtype=dtype) for _ in range(3)]


def test_attention_equals_its_naive_twin():
    torch.testing.assert_close(_softmax_attention(*heads()), naive_attention(*heads()))


def test_the_path_with_dropout_on_weights_equals_the_twin_where_nothing_is_dropped(monkeypatch):
    monkeypatch.setattr("qsgd_ray.models.transformer._dropout", lambda x, p: x)
    torch.testing.assert_close(_softmax_attention(*heads(), dropout_p=0.5), naive_attention(*heads()))


def test_torchs_own_attention_fits_the_seam_and_gives_the_same_logits():
    model, other = a_model().eval(), a_model(attention=lambda _: F.scaled_dot_product_attention).eval()
    torch.testing.assert_close(model(some_tokens()), other(some_tokens()))


def test_a_swapped_attention_is_what_the_layers_call():
    seen = []

    def of_layer(layer):
        def values_only(query, key, value, *, dropout_p=0.0):
            seen.append((layer, tuple(query.shape), tuple(key.shape), dropout_p))
            return value

        return values_only

    a_model(attention=of_layer)(some_tokens())
    assert seen == [(layer, (4, 2, 6, 4), (4, 2, 6, 4), 0.1) for layer in (0, 1)]


def test_an_attention_with_parameters_trains_with_the_model():
    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.ones(()))

        def forward(self, query, key, value, *, dropout_p=0.0):
            return self.scale * _softmax_attention(query, key, value, dropout_p=dropout_p)

    model = a_model(attention=lambda _: Scaled())
    model(some_tokens()).square().sum().backward()
    scales = {name: p for name, p in model.named_parameters() if name.endswith("attention.scale")}
    assert list(scales) == ["layers.0.attention.scale", "layers.1.attention.scale"]
    assert all(p.grad is not None for p in scales.values())


def test_a_layer_equals_torchs_pre_norm_layer_with_the_same_weights():
    layer = a_model().eval().layers[0]
    twin = torch.nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=True).eval()
    pairs = {
        "self_attn.in_proj": "query_key_value",
        "self_attn.out_proj": "project",
        "linear1": "widen",
        "linear2": "narrow",
        "norm1": "attention_norm",
        "norm2": "feedforward_norm",
    }
    state = {}
    for theirs, ours in pairs.items():
        joint = "_" if theirs.endswith("in_proj") else "."
        state |= {f"{theirs}{joint}{kind}": getattr(getattr(layer, ours), kind) for kind in ("weight", "bias")}
    twin.load_state_dict(state)
    x = torch.randn(4, 6, 8)
    torch.testing.assert_close(layer(x), twin(x))


def test_the_papers_model_gives_a_logit_a_class():
    model = TransformerClassifier(Transformer(), vocabulary=16, length=16, n_classes=4)
    assert model(torch.zeros(5, 16, dtype=torch.int64)).shape == (5, 4)


def test_the_order_of_tokens_matters():
    model, tokens = a_model().eval(), torch.tensor([[0, 1, 2, 3, 4, 5]])
    assert not torch.allclose(model(tokens), model(tokens.flip(1)))


def test_a_training_step_repeats_bit_for_bit():
    def gradients():
        model = a_model()
        F.cross_entropy(model(some_tokens()), torch.tensor([0, 1, 2, 0])).backward()
        return [parameter.grad for parameter in model.parameters()]

    assert all(torch.equal(first, second) for first, second in zip(gradients(), gradients(), strict=True))


def test_every_parameter_has_a_gradient():
    model = a_model()
    F.cross_entropy(model(some_tokens()), torch.tensor([0, 1, 2, 0])).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_dropout_is_off_in_eval_mode_and_on_in_training():
    model = a_model()
    assert not torch.equal(model(some_tokens()), model(some_tokens()))
    model.eval()
    assert torch.equal(model(some_tokens()), model(some_tokens()))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    n = 200_003
    result = _dropout(torch.ones(n), p)
    assert result.unique().tolist() == [0.0, pytest.approx(1 / (1 - p), rel=2e-4)]
    # Binomial: five standard deviations, a false alarm in 1.7 million runs, were the seed not fixed.
    assert abs((result == 0).double().mean().item() - p) < 5 * (p * (1 - p) / n) ** 0.5 + 2**-17


def test_dropout_of_neighbours_is_independent():
    torch.manual_seed(0)
    n = 200_000
    dropped = _dropout(torch.ones(n), 0.1) == 0
    for lag in (1, 2, 3, 4):
        both = (dropped[lag:] & dropped[:-lag]).double().mean().item()
        # Five standard deviations of a share of 0.01 (lagged pairs are almost uncorrelated): as above.
        assert abs(both - 0.01) < 5 * (0.01 * 0.99 / n) ** 0.5 * 1.2


def test_dropout_lets_the_gradient_through_where_it_kept():
    torch.manual_seed(0)
    x = torch.randn(1000, requires_grad=True)
    y = _dropout(x, 0.25)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x.detach(), y.detach())


def test_no_dropout_is_the_identity_and_draws_nothing():
    x, state = torch.randn(7), torch.get_rng_state()
    assert _dropout(x, 0.0) is x
    assert torch.equal(torch.get_rng_state(), state)


def a_quantum_model(settings=SMALL, **fields):
    torch.manual_seed(3)
    return quantum_classifier(settings, vocabulary=10, length=6, n_classes=3, **fields)


def test_quantum_attention_leaves_the_other_weights_of_a_seed_as_they_are():
    plain, quantum = a_model().state_dict(), a_quantum_model().state_dict()
    assert quantum.keys() - plain.keys() == {"layers.0.attention.angles", "layers.1.attention.angles"}
    assert all(torch.equal(plain[name], quantum[name]) for name in plain)


def test_with_phi_off_training_is_the_plain_classifiers_bit_for_bit():
    def trained(model):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(some_tokens()), torch.tensor([0, 1, 2, 0])).backward()
            optimizer.step()
        return model.state_dict()

    plain, off = trained(a_model()), trained(a_quantum_model(phi=False))
    assert plain.keys() == off.keys()
    assert all(torch.equal(plain[name], off[name]) for name in plain)


@pytest.mark.parametrize("per_head", [False, True])
def test_every_angle_of_every_layer_has_a_gradient(per_head):
    model = a_quantum_model(per_head=per_head, readout="probability")
    F.cross_entropy(model(some_tokens()), torch.tensor([0, 1, 2, 0])).backward()
    angles = [p for name, p in model.named_parameters() if name.endswith("angles")]
    assert [tuple(p.shape) for p in angles] == [(2 if per_head else 1, 2, 4, 2)] * 2
    # the phases of the last layer do not change a probability
    assert all((p.grad[:, 0].abs() > 0).all() and (p.grad[:, 1, :, 0].abs() > 0).all() for p in angles)


@pytest.mark.parametrize("per_head", [False, True])
def test_circuits_of_all_layers_run_together_change_nothing(monkeypatch, per_head):
    def logits_and_gradients():
        model = a_quantum_model(per_head=per_head).eval()
        logits = model(some_tokens())
        logits.square().sum().backward()
        return logits.detach(), *(p.grad for p in model.parameters())

    together = logits_and_gradients()
    monkeypatch.setattr("qsgd_ray.models.transformer._run_circuits_together", lambda attentions: None)
    torch.testing.assert_close(together, logits_and_gradients(), rtol=1e-5, atol=1e-6)


def test_the_classifier_runs_its_circuits_once_a_pass_however_long_the_sequence(monkeypatch):
    n_circuits, simulate = [], series.first_amplitudes

    def counting(spec, angles):
        n_circuits.append(len(angles))
        return simulate(spec, angles)

    monkeypatch.setattr(series, "first_amplitudes", counting)
    for length in (16, 32):
        quantum_classifier(Transformer(), 10, length, 2)(torch.zeros(5, length, dtype=torch.int64))
    assert n_circuits == [2 * 9, 2 * 9]


def test_layers_with_unlike_circuits_keep_their_own(monkeypatch):
    readouts = ("amplitude", "probability", "amplitude")
    settings = SMALL.model_copy(update={"n_layers": 3})
    model = a_model(settings, attention=lambda i: QuantumAttention(readout=readouts[i])).eval()
    together = model(some_tokens())
    monkeypatch.setattr("qsgd_ray.models.transformer._run_circuits_together", lambda attentions: None)
    torch.testing.assert_close(together, model(some_tokens()))


def test_a_quantum_training_step_repeats_bit_for_bit():
    def gradients():
        model = a_quantum_model()
        F.cross_entropy(model(some_tokens()), torch.tensor([0, 1, 2, 0])).backward()
        return [parameter.grad for parameter in model.parameters()]

    assert all(torch.equal(first, second) for first, second in zip(gradients(), gradients(), strict=True))

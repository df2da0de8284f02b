"""Quantum attention in the text workload: seeds, settings, gradients and replicas."""

import hashlib

import pytest
import torch
from support.replicas import in_two_processes
from support.small_tasks import TINY_TRANSFORMER, a_text_task

from qsgd_ray.circuits.backends.in_process import TorchBackend
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.config import Arm, Perturbation, QuantumAttention
from qsgd_ray.config.trial import Trial
from qsgd_ray.models.attention import QuantumAttention as QuantumAttentionModule
from qsgd_ray.models.transformer import TransformerClassifier
from qsgd_ray.optimizer import make_optimizer
from qsgd_ray.outcome import Ending
from qsgd_ray.training._state import fingerprint
from qsgd_ray.training.loop import run, train
from qsgd_ray.training.replica import Replica
from qsgd_ray.workloads import make_workload

pytestmark = pytest.mark.usefixtures("one_thread")

TWO_LAYERS = TINY_TRANSFORMER.model_copy(update={"n_layers": 2})
ATTENTION = QuantumAttention(n_qubits=2)


def with_attention(**fields):
    """A workload whose model has quantum attention in both layers."""
    attention = ATTENTION.model_copy(update=fields)
    return make_workload(a_text_task(model=TWO_LAYERS.model_copy(update={"attention": attention})))


def gradients_after_a_step(workload, model):
    torch.manual_seed(0)
    workload.loss(model, next(workload.batches(0, 0))).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def test_without_quantum_attention_the_weights_are_the_classifiers_own():
    task = a_text_task(model=TWO_LAYERS)
    # What `make_model` has always seeded torch with: other weights would void every result so far.
    digest = hashlib.sha256(repr(("initial weights", 7)).encode()).digest()
    torch.manual_seed(int.from_bytes(digest, "big") % 2**63)
    plain = TransformerClassifier(TWO_LAYERS, task.vocabulary, task.length, task.n_classes)
    assert fingerprint(make_workload(task).make_model(7)) == fingerprint(plain)


@pytest.mark.parametrize("training", [True, False])
def test_with_phi_off_the_model_is_the_plain_one_bit_for_bit(training):
    off, plain = with_attention(phi=False), make_workload(a_text_task(model=TWO_LAYERS))
    models = [workload.make_model(7).train(training) for workload in (off, plain)]
    assert fingerprint(models[0]) == fingerprint(models[1])
    gradients = [gradients_after_a_step(plain, model) for model in models]
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], grad) for name, grad in gradients[1].items())


def test_the_seed_alone_gives_the_angles_and_the_other_weights_are_those_of_the_plain_model():
    workload, plain = with_attention(), make_workload(a_text_task(model=TWO_LAYERS))
    torch.manual_seed(1)
    before, first = torch.get_rng_state(), workload.make_model(7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert fingerprint(workload.make_model(7)) == fingerprint(first)
    quantum, plain_weights = first.state_dict(), plain.make_model(7).state_dict()
    assert quantum.keys() - plain_weights.keys() == {f"layers.{layer}.attention.angles" for layer in (0, 1)}
    assert all(torch.equal(quantum[name], weights) for name, weights in plain_weights.items())
    eight = workload.make_model(8).layers[0].attention.angles
    assert not torch.equal(first.layers[0].attention.angles, eight)


def test_every_setting_of_quantum_attention_reaches_its_layers():
    settings = {"depth": 3, "entangle": "ring", "rotations": ("rx",), "readout": "probability"}
    model = with_attention(**settings, per_head=True, compiled=True).make_model(0)
    for layer in model.layers:
        attention = layer.attention
        assert isinstance(attention, QuantumAttentionModule)
        assert attention.spec == CircuitSpec(2, 3, "ring", ("rx",))
        assert (attention.readout, attention.compiled, attention.phi) == ("probability", True, True)
        assert attention.angles.shape == (TINY_TRANSFORMER.n_heads, 3, 2, 1)
    assert with_attention().make_model(0).layers[0].attention.angles.shape == (1, 2, 2, 2)


@pytest.mark.parametrize("readout", ["amplitude", "probability"])
@pytest.mark.parametrize("per_head", [False, True])
def test_with_quantum_attention_every_parameter_has_a_gradient_and_a_step_lowers_the_loss(readout, per_head):
    workload = with_attention(readout=readout, per_head=per_head)
    model = workload.make_model(0).eval()
    batch = next(workload.batches(0, 0))
    before = workload.loss(model, batch)
    optimizer = make_optimizer(Arm(name="a", learning_rate=1e-3), model.parameters(), None)
    before.backward()
    assert all(parameter.grad.any() for parameter in model.parameters())
    optimizer.step()
    assert workload.loss(model, batch) < before


def test_a_perturbation_of_scope_tensor_reaches_the_first_angles_of_every_layer():
    moved = {}
    for lambda_ in (0.0, 5.0):
        workload = with_attention()
        model = workload.make_model(0).eval()
        perturbation = Perturbation(source="circuit", lambda_=lambda_, n_qubits=2, scope="tensor")
        arm = Arm(name="a", learning_rate=1e-2, perturbation=perturbation)
        optimizer = make_optimizer(arm, model.parameters(), TorchBackend())
        gradients_after_a_step(workload, model)
        optimizer.step()
        moved[lambda_] = [layer.attention.angles.detach().flatten() for layer in model.layers]
    for plain, perturbed in zip(moved[0.0], moved[5.0], strict=True):
        assert (plain != perturbed).tolist() == [True, True, *[False] * 6]


def replica_of_two(rank):
    """What one of two replicas ends with: one epoch with quantum attention, under DistributedDataParallel."""
    return run(train(a_trial(workers=2), with_attention(), None, Replica(rank, 2)), lambda _: False)


def a_trial(**fields):
    workload, arm = with_attention().settings, Arm(name="a", learning_rate=1e-2)
    whole = {"study": "s", "stage": "confirm", "number": 0, "arm": arm, "workload": workload, "seed": 7, "epochs": 1}
    return Trial(**whole | {"workers": 1, "reads_test": True} | fields)


def test_replicas_with_quantum_attention_end_with_the_same_bits(tmp_path):
    outcome, the_others = in_two_processes(replica_of_two, tmp_path)
    assert outcome.ending is Ending.COMPLETED
    assert outcome.parameters_sha256 == the_others.parameters_sha256 != fingerprint(with_attention().make_model(7))


def test_quantum_attention_is_part_of_what_names_a_trial():
    attentions = (None, ATTENTION, QuantumAttention(n_qubits=2), QuantumAttention(n_qubits=3))
    tasks = [
        a_text_task(model=TINY_TRANSFORMER.model_copy(update={"attention": attention})) for attention in attentions
    ]
    none, one, same, other = (a_trial(workload=task).trial_id for task in tasks)
    assert one == same
    assert len({none, one, other}) == 3
    assert Trial.model_validate_json(a_trial(workload=tasks[1]).model_dump_json()).trial_id == one

import psutil
import pytest
import torch
from support.peak_memory import PeakMemory

from qsgd_ray.circuits import memory
from qsgd_ray.circuits.errors import CircuitMemoryError
from qsgd_ray.circuits.memory import available_bytes, needed_bytes, require_memory, statevector_bytes
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.circuits.statevector.simulate import expectations, probabilities, statevector


def test_a_state_takes_sixteen_bytes_an_amplitude_and_eight_in_single_precision():
    assert statevector_bytes(10) == 16 * 1024
    assert statevector_bytes(10, torch.complex64) == 8 * 1024


def test_the_refusal_names_the_need_the_memory_and_the_largest_circuit_that_fits():
    require_memory(3, 320)
    with pytest.raises(CircuitMemoryError) as error:
        require_memory(30, 2**30)
    assert str(error.value) == (
        "n_qubits: got 30, a simulation that needs 42,949,672,960 bytes with 1,073,741,824 there; allowed: at most 24"
    )
    require_memory(24, 2**30)
    with pytest.raises(CircuitMemoryError, match=r"allowed: at most 0$"):
        require_memory(1, 0)


def test_states_of_the_answer_count():
    require_memory(10, 6 * 2**14, answer_states=4)  # 2.5 for the one under way, 3 finished
    with pytest.raises(CircuitMemoryError, match="got 10, 6 states that needs 122,880 bytes"):
        require_memory(10, 6 * 2**14, answer_states=6)


def test_the_machine_has_memory():
    assert 2**20 < available_bytes() < 2**50


@pytest.mark.parametrize("simulate", [expectations, statevector, probabilities])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("entangle", ["chain", "ring", "all", "none"])
def test_simulation_needs_no_more_memory_than_is_required(simulate, depth, entangle):
    spec = CircuitSpec(17, depth, entangle)
    with torch.no_grad(), PeakMemory() as memory:
        simulate(spec, torch.rand(1, depth, 17, 2, dtype=torch.float64))
    assert memory.peak <= needed_bytes(17) + 2**16


def test_a_container_has_what_its_group_may_take(tmp_path, monkeypatch):
    limits = [tmp_path / name for name in ("none", "endless", "small")]
    limits[1].write_text("max\n")
    limits[2].write_text("1048576\n")
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", limits[:2])
    assert memory.total_bytes() == psutil.virtual_memory().total
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", limits)
    assert memory.total_bytes() == 2**20

"""What the arms of a study need is asked of the machines that will run them, before the first trial."""

import subprocess
import sys

import cloudpickle
import pytest
from support.small_study import a_study

from qsgd_ray.config import Arm, LanguageTask, Lora, NoiseSettings, Perturbation, Resources, StudyError
from qsgd_ray.execution import requirements
from qsgd_ray.execution.requirements import (
    NodeReport,
    _hosts,
    _needed_modules,
    _portable_look,
    _require_modules_here,
    ask_nodes,
    report_here,
    require_modules_there,
    version_differences,
)

NOISY = Arm(name="noisy", perturbation=Perturbation(source="noisy", shots=10, noise=NoiseSettings(p01=0.1)))


def noisy_study(**resources):
    return a_study(arms=(Arm(name="adamw"), NOISY), resources=Resources(**resources))


def a_report(node="n1", role="circuits", missing=(), **versions) -> NodeReport:
    return NodeReport(node, role, versions, missing)


def test_a_study_asks_for_what_its_own_arms_need_and_where_they_need_it():
    assert _needed_modules(a_study(), "worker").keys() == {"qsgd_ray", "torch"}
    assert "qiskit_aer" not in _needed_modules(noisy_study(), "worker")
    assert _needed_modules(noisy_study(), "circuits")["qiskit_aer"] == "arms.noisy.perturbation.source"
    assert "qiskit_aer" in _needed_modules(noisy_study(circuit_actors=None), "worker")
    task = LanguageTask(lora=Lora())
    words = a_study(workload=task, confirm={"seeds": (11,), "epochs": 1, "workers": 1})
    assert _needed_modules(words, "worker").keys() == {"qsgd_ray", "torch", "transformers", "peft"}


def test_this_machine_without_a_package_is_one_line(monkeypatch):
    _require_modules_here(noisy_study())
    monkeypatch.setattr(requirements, "find_spec", lambda name: None if name == "qiskit_aer" else name)
    _require_modules_here(a_study())
    said = r"^arms\.noisy\.perturbation\.source: got a study that needs qiskit-aer, which this machine lacks; allowed: "
    with pytest.raises(StudyError, match=said):
        _require_modules_here(noisy_study())


def test_a_node_without_a_package_is_named_in_one_line():
    study = noisy_study()
    require_modules_there(study, [a_report(), a_report(role="worker", missing=("qiskit_aer",))])
    with pytest.raises(StudyError, match=r"needs qiskit-aer, which node n2 lacks; allowed: with it \(pip install qis"):
        require_modules_there(study, [a_report(), a_report("n2", missing=("qiskit_aer",))])
    with pytest.raises(StudyError, match=r"^study: got a study that needs qsgd-ray, which node n3 lacks"):
        require_modules_there(study, [a_report("n3", missing=("qsgd_ray",))])


def test_versions_that_differ_are_told_with_node_package_and_both_versions():
    here = a_report("here", torch="2.13.0", ray="2.60.0", python="3.11.7")
    assert version_differences(here, [a_report(torch="2.13.0", ray="2.60.0", python="3.11.7")]) == []
    there = [
        a_report(torch="2.12.0", ray="2.60.0"),
        a_report("n2", torch="2.12.0"),
        a_report(role="worker", torch="2.12.0"),
    ]
    assert version_differences(here, there) == [
        "Node n1 and 1 more has torch 2.12.0, this process 2.13.0: rows of the two may differ in their last bits."
    ]
    assert version_differences(here, [a_report(torch=None)]) == [], "what is missing is not another version"


def test_the_question_travels_by_its_code_to_nodes_that_lack_this_package(tmp_path):
    (tmp_path / "look").write_bytes(cloudpickle.dumps(_portable_look()))
    script = (
        "import sys, cloudpickle; sys.modules['qsgd_ray'] = None\n"
        "look = cloudpickle.load(open('look', 'rb'))\n"
        "versions, missing = look(('json', 'no_such_module'), ('torch', 'nix'))\n"
        "print(missing, bool(versions['torch']), versions['nix'])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "('no_such_module',) True None"
    assert report_here().versions["torch"]


def test_nodes_that_are_gone_or_of_another_kind_are_not_asked():
    nodes = [
        {"Alive": True, "Resources": {"CPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 2.0, "sim": 1.0}},
        {"Alive": False, "Resources": {"CPU": 2.0, "sim": 1.0}},
        {"Alive": True, "Resources": {"sim": 1.0}},
    ]
    assert _hosts(nodes, {"sim": 0.001}) == [nodes[1]]
    assert _hosts(nodes, {}) == nodes[:2]


@pytest.mark.ray
def test_the_nodes_of_a_cluster_answer(cluster):
    reports = ask_nodes(noisy_study())
    assert {report.role for report in reports} == {"worker", "circuits"}
    assert all(report.missing == () for report in reports)
    require_modules_there(noisy_study(), reports)
    assert version_differences(report_here(), reports) == []

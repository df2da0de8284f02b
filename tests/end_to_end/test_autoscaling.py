"""A real study on a cluster that grows for it and shrinks after it: a head without CPUs, and nodes that come and go.

The same study again, while a node that simulates is lost and then the node that trains, ends with the same rows. A
study of a class of one's own travels as a job, with the module beside its file, to a node that comes for it.
"""

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.local_cluster import LocalCluster, Seen, local_cluster
from support.own_tasks import write_study
from support.processes import name_of, wait_until
from support.run_contexts import timeless

from qsgd_ray.results import StudyTables, read

pytestmark = [
    pytest.mark.ray,
    pytest.mark.kill,
    pytest.mark.slow,
    pytest.mark.xdist_group("local-cluster"),
    pytest.mark.timeout(1500),
]

# One trial at a time, so that its rows are always the same; those of the confirmation last for seconds.
STUDY = """
from qsgd_ray.config import *

rate = LogUniform(low=1e-3, high=1e-2)
model = Transformer(d_model=8, n_heads=2, d_feedforward=8, n_layers=1)
STUDY = Study(
    name="small",
    question="Does it run where it is told to?",
    workload=TextTask(train_size=64, validation_size=64, test_size=64, model=model),
    arms=(
        Arm(name="adamw", learning_rate=rate),
        Arm(name="circuit", learning_rate=rate, perturbation=Perturbation(source="circuit", n_qubits=2)),
    ),
    baseline="adamw",
    search=Search(trials_per_arm=1, epochs=1, grace_epochs=1),
    confirm=Confirm(seeds=(11, 12), epochs=300, workers=2),
    decision=Decision(margin=0.05),
    resources=Resources(worker_nodes="train", circuit_nodes="sim", circuit_actors=2),
)
"""
# An actor of Ray's own, for as long as the cluster lives.
STAYS = "_AutoscalingCoordinatorActor"
# The processes of a head alone, of those that nodes and actors have.
HEAD_ALONE = {"raylet": 1, "ray::DashboardAgent": 1, "ray::RuntimeEnvAgent": 1, f"ray::{STAYS}": 1}


@dataclass(frozen=True)
class Ended:
    """A study that ended: what it said, what it left, and what there was of the cluster until it had shrunk again."""

    said: str
    tables: StudyTables
    seen: list[Seen]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[LocalCluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with local_cluster(folder, "--train-cpus", "2", "--sim-cpus", "1") as cluster:
        yield cluster


def to_its_end(study: subprocess.Popen, storage: Path, cluster: LocalCluster, before: int) -> Ended:
    """`before`: how much was seen before it."""
    code = study.wait(timeout=400)
    said = (storage / "told").read_text()
    assert code == 0, said
    cluster.wait_until(lambda seen: seen.groups == ["head"], 60, "the cluster does not shrink")
    cluster.wait_until(lambda seen: {name for name, _, _ in seen.actors} <= {STAYS}, 20, "actors are left")
    cluster.wait_until(lambda seen: not seen.placement_groups, 20, "placement groups are left")

    def is_alone():
        names = Counter(name for name in map(name_of, cluster.family()) if name.startswith(("raylet", "ray::")))
        return names == HEAD_ALONE and not any(map(cluster.processes_of, gone))

    seen = cluster.seen()[before:]
    gone = {node for now in seen for node, group in now.nodes.items() if group != "head"}
    wait_until(is_alone, 20, "processes are left of nodes that are gone")
    return Ended(said, read(storage / "small"), seen)


@pytest.fixture(scope="module")
def study_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("study") / "small.py"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def undisturbed(cluster, study_file, tmp_path_factory) -> Ended:
    storage = tmp_path_factory.mktemp("undisturbed")
    with cluster.study(study_file, storage) as study:
        return to_its_end(study, storage, cluster, before=0)


def test_a_study_brings_a_train_node_and_two_sim_nodes_and_leaves_the_head_alone(undisturbed):
    assert "The study waits for the cluster to grow: it needs" in undisturbed.said
    assert "a node of the kind train, a node of the kind sim" in " ".join(undisturbed.said.split())
    groups = [now.groups for now in undisturbed.seen]
    assert groups[0] == ["head"]
    assert max(groups, key=len) == ["head", "sim", "sim", "train"]
    group_of = {node: group for now in undisturbed.seen for node, group in now.nodes.items()}
    for actor, group in (("CircuitActor", "sim"), ("RayTrainWorker", "train")):
        assert {group_of[node] for now in undisturbed.seen for node in now.runs_on(actor)} == {group}
    rows = undisturbed.tables.trials.to_pylist()
    assert len(rows) == 6
    assert {row["ending"] for row in rows} == {"completed"}


def lose(kind: str, cluster: LocalCluster, study: subprocess.Popen, storage: Path, rows: int) -> tuple[str, datetime]:
    """A node of this kind, amid the trial after so many of the confirmation: which one, and when."""

    def are_there():
        return study.poll() is not None or len(list(storage.glob("small/trials/confirm-*"))) >= rows

    wait_until(are_there, 300, f"{rows} trials of the confirmation did not end")
    assert study.poll() is None, (storage / "told").read_text()
    time.sleep(0.5)
    node = next(node for node, group in cluster.seen()[-1].nodes.items() if group == kind)
    at = datetime.now(UTC)
    cluster.lose(node)
    return node, at


def successors(lost: str, actor: str, seen: list[Seen]) -> set[str]:
    """The nodes with such actors that came when this one was gone."""
    beside = {node for now in seen if lost in now.nodes for node in now.nodes}
    return {node for now in seen for node in now.runs_on(actor)} - beside


def test_a_study_that_loses_a_sim_node_and_then_its_train_node_ends_as_if_undisturbed(
    undisturbed, cluster, study_file, tmp_path
):
    before = len(cluster.seen())
    with cluster.study(study_file, tmp_path) as study:
        sim, sim_lost = lose("sim", cluster, study, tmp_path, rows=1)
        train, train_lost = lose("train", cluster, study, tmp_path, rows=3)
        ended = to_its_end(study, tmp_path, cluster, before)
    for table in ("trials", "measurements"):
        rows = [timeless(row) for row in getattr(ended.tables, table).to_pylist()]
        assert rows
        assert rows == [timeless(row) for row in getattr(undisturbed.tables, table).to_pylist()]
    assert len(successors(sim, "CircuitActor", ended.seen)) == 1, "another node came in place of the lost one"
    assert len(successors(train, "RayTrainWorker", ended.seen)) == 1
    trials = {(row["stage"], row["arm"], row["seed"]): row for row in ended.tables.trials.to_pylist()}
    # The arms take turns in being first at a seed, so adamw's is the last.
    asked, repeated = trials["confirm", "circuit", 11], trials["confirm", "adamw", 12]
    assert asked["started_at"] < sim_lost < asked["started_at"] + timedelta(seconds=asked["elapsed_s"])
    assert train_lost < repeated["started_at"]


def test_a_class_of_one_s_own_travels_by_job_to_a_node_that_comes_for_it(cluster, tmp_path):
    (tmp_path / "studies").mkdir()
    write_study(tmp_path / "studies", "rings_there")
    before, storage = len(cluster.seen()), tmp_path / "results"
    on_train = ("--set", "resources.worker_nodes=train")
    said = cluster.job(tmp_path, "run", "studies/rings_there.py", "--storage", storage, *on_train)
    assert f"Report: {storage}/rings/report.html" in said
    seen = cluster.seen()[before:]
    assert (seen[0].groups, max(map(len, (now.groups for now in seen)))) == (["head"], 2)
    rows = read(storage / "rings").trials.to_pylist()
    assert {row["ending"] for row in rows} <= {"completed", "stopped_early"}, said
    assert {(row["arm"], row["seed"]) for row in rows if row["stage"] == "confirm"} == {
        (arm, seed) for arm in ("adamw", "wide") for seed in (101, 102)
    }
    assert all('"kind":"rings_there:Rings"' in row["trial"] for row in rows)

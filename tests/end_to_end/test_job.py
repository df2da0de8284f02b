"""`ray job submit` on a cluster: logs stream, the exit code is the study's, a stop keeps the rows, the same goes on.

One head with its dashboard serves all cases. Its storage is a bucket, so Ray's own notes are there too.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import yaml
from support.own_tasks import write_study
from support.places import ROOT
from support.processes import STARTS_RAY_S, wait_until
from support.stores import BUCKET, client, credentials, s3_server

from qsgd_ray.results import Results

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("job"), pytest.mark.timeout(STARTS_RAY_S)]

RUNTIME_ENV = ROOT / "cluster" / "runtime-env.yaml"
STORAGE = f"s3://{BUCKET}/jobs"
SEEDS = (11, 12, 13, 14, 15)
OWN_SEEDS = (101, 102, 103, 104, 105)
STUDY = f"""
from qsgd_ray.config import *

rate = LogUniform(low=1e-3, high=1e-2)
model = Transformer(d_model=8, n_heads=2, d_feedforward=8, n_layers=1)
STUDY = Study(
    name="small",
    question="Does it run as a job?",
    workload=TextTask(train_size=64, validation_size=64, test_size=64, model=model),
    arms=(
        Arm(name="adamw", learning_rate=rate),
        Arm(name="sine", learning_rate=rate, perturbation=Perturbation(source="sine", n_qubits=2)),
    ),
    baseline="adamw",
    search=Search(trials_per_arm=1, epochs=2, grace_epochs=1),
    confirm=Confirm(seeds={SEEDS}, epochs=80, workers=2),
    decision=Decision(margin=0.05),
)
"""
RAY = [sys.executable, "-m", "ray.scripts.scripts"]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


@contextmanager
def head(environment: dict[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    """The address of the dashboard of a cluster of one node that listens on loopback, and its process."""
    port, dashboard, agent, clients = free_ports(4)
    folder = tempfile.mkdtemp(prefix="head-")  # a socket's path must be short
    words = {
        "--port": port,
        "--dashboard-port": dashboard,
        "--dashboard-agent-listen-port": agent,
        "--ray-client-server-port": clients,
        "--dashboard-host": "127.0.0.1",
        "--node-ip-address": "127.0.0.1",
        "--include-dashboard": "true",
        "--num-cpus": 4,
        "--object-store-memory": 100_000_000,
        "--temp-dir": folder,
    }
    command = [*RAY, "start", "--head", "--block", *(str(word) for pair in words.items() for word in pair)]
    with (
        open(Path(folder) / "told", "w") as told,
        subprocess.Popen(
            command, env=environment, stdout=told, stderr=subprocess.STDOUT, start_new_session=True
        ) as running,
    ):
        process = psutil.Process(running.pid)
        try:
            wait_until(lambda: answers(dashboard) or running.poll() is not None, 90, "no dashboard")
            assert running.poll() is None, Path(told.name).read_text()
            yield f"http://127.0.0.1:{dashboard}", process
        finally:
            # Ray's own farewell takes half a minute, and nothing of this cluster is kept.
            family = [process, *process.children(recursive=True)] if process.is_running() else []
            for member in family:
                with suppress(psutil.Error):
                    member.kill()
            psutil.wait_procs(family, timeout=30)
    shutil.rmtree(folder, ignore_errors=True)


def answers(port: int) -> bool:
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/version", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


class Cluster:
    """A project's folder from which jobs are submitted, and the cluster that runs them."""

    def __init__(self, dashboard: str, process: psutil.Process, project: Path, environment: dict[str, str]) -> None:
        from ray.job_submission import JobSubmissionClient

        self.jobs = JobSubmissionClient(dashboard)
        self.process = process
        self._words = [*RAY, "job", "submit", "--address", dashboard, "--working-dir", "."]
        self._words += ["--runtime-env", str(RUNTIME_ENV)]
        self._where = {"cwd": project, "env": environment, "text": True}
        self._where |= {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}

    def submit(self, name: str, *words: str) -> subprocess.Popen:
        return subprocess.Popen([*self._words, "--submission-id", name, "--", "qsgd-ray", *words], **self._where)

    def finish(self, name: str, running: subprocess.Popen) -> tuple[int, str]:
        """The exit code of the study's process and what was said."""
        with running:
            told, _ = running.communicate(timeout=300)
        info = self.jobs.get_job_info(name)
        assert (running.returncode == 0) == (info.driver_exit_code == 0), told
        return info.driver_exit_code, told

    def of_studies(self) -> list[str]:
        """The processes of studies that are there now."""
        names = []
        for process in self.process.children(recursive=True):
            try:
                names.append(process.name())
            except psutil.Error:
                continue
        ours = ("qsgd-ray", "ray::TunedTrial", "ray::_Board", "ray::RayTrainWorker", "ray::TrainController")
        return [name for name in names if name.startswith(ours)]


RUN = ("run", "studies/small.py", "--storage", STORAGE)


@pytest.fixture(scope="module")
def store():
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def cluster_of_jobs(store, tmp_path_factory):
    project = tmp_path_factory.mktemp("project")
    for folder in ("studies", "results", "qsgd_ray", ".venv"):
        (project / folder).mkdir()
    (project / "studies" / "small.py").write_text(STUDY)
    write_study(project / "studies", "rings_job", lambda text: text.replace("(101, 102)", f"{OWN_SEEDS}"))
    (project / "qsgd_ray" / "__init__.py").write_text("raise RuntimeError('a copy that was uploaded')")
    (project / "results" / "rows").write_text("left at home")
    environment = os.environ | credentials(store)
    environment |= {
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or Ray takes the machine's address in the place of loopback
        "RAY_prestart_worker_first_driver": "0",  # no job would use these workers
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    environment.pop("RAY_ADDRESS", None)
    with pytest.MonkeyPatch.context() as patch, head(environment) as (dashboard, process):
        patch.setenv("RAY_AUTH_MODE", "disabled")  # the client in this process asks the same
        yield Cluster(dashboard, process, project, environment)


@pytest.fixture(scope="module")
def results(store):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in credentials(store).items():
            patch.setenv(name, value)
        yield Results(f"{STORAGE}/small")


@pytest.fixture(scope="module")
def stopped(cluster_of_jobs, results, store):
    """A job that was stopped amid its confirmation: what it said, what its job is, and its whole trials' files."""
    jobs, said = cluster_of_jobs.jobs, []
    with cluster_of_jobs.submit("first", *RUN) as running:
        for line in running.stdout:
            said.append(line)
            if "confirm" in line and "completed" in line:
                break
        streamed_while = jobs.get_job_status("first").value
        jobs.stop_job("first")
        said.append(running.communicate(timeout=60)[0])
    wait_until(lambda: not cluster_of_jobs.of_studies(), 30, "processes of the study are left")
    return "".join(said), streamed_while, jobs.get_job_info("first"), of_whole_trials(stored(store))


def stored(store: str) -> dict[str, str]:
    """Every row's file in the bucket and its content's hash, by table/name."""
    prefix = "jobs/small/"
    listed = client(store).list_objects_v2(Bucket=BUCKET, Prefix=prefix)["Contents"]
    return {item["Key"].removeprefix(prefix): item["ETag"] for item in listed if item["Key"].endswith(".parquet")}


def of_whole_trials(files: dict[str, str]) -> dict[str, str]:
    """Both files of each trial that has its row: a stop may fall between a trial's measurements and its row, which is
    written last, and such a trial is run again."""
    rows = {name.removeprefix("trials/") for name in files if name.startswith("trials/")}
    return {f"{table}/{name}": files[f"{table}/{name}"] for name in rows for table in ("trials", "measurements")}


@pytest.fixture(scope="module")
def resumed(cluster_of_jobs, stopped):
    return cluster_of_jobs.finish("second", cluster_of_jobs.submit("second", *RUN))


def test_a_jobs_lines_stream_while_it_runs(stopped):
    said, streamed_while, *_ = stopped
    assert streamed_while == "RUNNING", said
    assert "search   adamw" in said
    assert "Traceback" not in said


def test_a_stopped_job_ends_at_once_and_says_what_is_kept(stopped, cluster_of_jobs):
    _, _, info, _ = stopped
    assert info.status.value == "STOPPED"
    supervisor = next(Path(cluster_of_jobs.process.cmdline()[-1]).glob("session_latest/logs/jobs/supervisor-first.log"))
    assert "terminated gracefully with SIGTERM" in supervisor.read_text(), "Ray kills what is not gone after 3 s"
    assert "the same command goes on from there" in cluster_of_jobs.jobs.get_job_logs("first")
    assert "Traceback" not in cluster_of_jobs.jobs.get_job_logs("first")


def test_the_same_submission_goes_on_and_neither_loses_nor_doubles_a_row(stopped, resumed, results, store):
    _, _, _, before = stopped
    code, said = resumed
    assert code == 0, said
    assert f"Report: {STORAGE}/small/report.html" in said
    rows = results.all_tables().trials.to_pylist()
    planned = [("search", arm, 0) for arm in ("adamw", "sine")]
    planned += [("confirm", arm, seed) for arm in ("adamw", "sine") for seed in SEEDS]
    assert sorted((row["stage"], row["arm"], row["seed"]) for row in rows) == sorted(planned)
    assert {row["ending"] for row in rows} == {"completed"}
    after = stored(store)
    assert after == of_whole_trials(after)
    assert len(before) < len(after) == 2 * len(planned)
    assert any(name.startswith("trials/confirm-") for name in before)
    assert before == {name: after[name] for name in before}, "a whole trial's files are what they were"


def test_what_is_uploaded_is_the_studies(resumed, cluster_of_jobs):
    """The package that stands in the submitted folder raises where it is imported, and the job ran."""
    assert resumed[0] == 0
    folder = Path(cluster_of_jobs.process.cmdline()[-1]) / "session_latest" / "runtime_resources" / "working_dir_files"
    (uploaded,) = [path for path in folder.iterdir() if path.is_dir()]
    assert sorted(path.name for path in uploaded.iterdir()) == ["studies"]


def test_a_class_of_one_s_own_travels_with_the_module_beside_it(cluster_of_jobs, results):
    """No worker finds `studies/` by itself: the study file and what it imports come by Ray's py_modules."""
    submitted = cluster_of_jobs.submit("own", "run", "studies/rings_job.py", "--storage", STORAGE)
    code, said = cluster_of_jobs.finish("own", submitted)
    assert code == 0, said
    rows = Results(f"{STORAGE}/rings").all_tables().trials.to_pylist()
    assert {row["ending"] for row in rows} <= {"completed", "stopped_early"}, said
    assert sorted((row["arm"], row["seed"]) for row in rows if row["stage"] == "confirm") == sorted(
        (arm, seed) for arm in ("adamw", "wide") for seed in OWN_SEEDS
    )
    assert all('"kind":"rings_job:Rings"' in row["trial"] for row in rows)


def test_the_exit_code_of_a_wrong_file_and_of_a_wrong_folder_is_2(cluster_of_jobs, resumed, results):
    chosen = results.read_json("chosen.json")
    results.write_text("chosen.json", json.dumps(chosen | {"sine": chosen["sine"] | {"point": {"learning_rate": -1}}}))
    broken = cluster_of_jobs.submit("broken", *RUN)
    none = cluster_of_jobs.submit("none", "run", "studies/none.py", "--storage", STORAGE)
    code, said = cluster_of_jobs.finish("none", none)
    assert code == 2
    assert "qsgd-ray: study file: got studies/none.py" in said
    code, said = cluster_of_jobs.finish("broken", broken)
    assert code == 2
    assert "qsgd-ray: DIR: got " in said
    assert "chosen.json" in said
    assert "Traceback" not in said
    wait_until(lambda: not cluster_of_jobs.of_studies(), 30, "processes of the study are left")


def test_the_runtime_environment_holds_no_secret_and_no_installation():
    tree = yaml.safe_load(RUNTIME_ENV.read_text())
    assert set(tree) == {"excludes", "env_vars"}
    assert {"/results", "/.venv", "/.git"} <= set(tree["excludes"])
    assert all(isinstance(value, str) for value in tree["env_vars"].values())
    assert not [name for name in tree["env_vars"] if "KEY" in name or "TOKEN" in name]

"""Aer's thread ends when it is idle, and its jobs are answered as before."""

import threading
import time

import pytest
import torch

from qsgd_ray.circuits.aer.executor import _ThreadWhileBusy
from qsgd_ray.circuits.spec import CircuitSpec


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("aer")}


def wait_until_ended(seconds: float = 5.0) -> None:
    ends = time.monotonic() + seconds
    while threads() and time.monotonic() < ends:
        time.sleep(0.01)
    assert not threads()


def test_jobs_run_one_after_the_other_in_their_order_in_one_thread() -> None:
    runner, done, by = _ThreadWhileBusy(), [], set()

    def job(number: int) -> int:
        by.add(threading.current_thread().name)
        done.append(number)
        return number * number

    go = threading.Event()
    first = runner.submit(go.wait)  # so that the others wait in the queue
    futures = [runner.submit(job, number) for number in range(50)]
    go.set()
    assert first.result(5)
    assert [future.result(5) for future in futures] == [number * number for number in range(50)]
    assert done == list(range(50))
    assert len(by) == 1
    wait_until_ended()


def test_a_job_that_fails_or_is_cancelled_does_not_keep_the_thread() -> None:
    runner, go = _ThreadWhileBusy(), threading.Event()
    running = runner.submit(go.wait)
    failing, never = runner.submit(int, "x"), runner.submit(int, "1")
    assert never.cancel()
    go.set()
    assert running.result(5)
    with pytest.raises(ValueError, match="invalid literal"):
        failing.result(5)
    wait_until_ended()
    assert runner.submit(int, "7").result(5) == 7  # and it starts another


def test_many_threads_may_submit_at_once() -> None:
    runner = _ThreadWhileBusy()
    answers: list[int] = []

    def submit() -> None:
        answers.extend(runner.submit(abs, -number).result(5) for number in range(200))

    submitters = [threading.Thread(target=submit) for _ in range(4)]
    for submitter in submitters:
        submitter.start()
    for submitter in submitters:
        submitter.join()
    assert sorted(answers) == sorted(4 * list(range(200)))
    wait_until_ended()


def test_no_thread_of_aers_is_left_behind_a_submission() -> None:
    pytest.importorskip("qiskit_aer")
    from qiskit_aer.jobs import utils

    from qsgd_ray.circuits.aer.backend import AerBackend

    spec = CircuitSpec(3)
    before = AerBackend("statevector")
    assert isinstance(utils.DEFAULT_EXECUTOR, _ThreadWhileBusy)
    before.submit(spec, torch.rand(spec.angles_shape(5))).result()
    wait_until_ended()

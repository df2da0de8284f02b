"""Events on their way from a trial to whoever shows them."""

import os

import pytest
import ray
from support.trainings import small_trial

from qsgd_ray.execution.events import Event, EventQueue
from qsgd_ray.outcome import Ending


@pytest.mark.usefixtures("cluster")
def test_the_end_of_a_trial_arrives_though_its_process_is_gone_at_once():
    @ray.remote(num_cpus=0, max_retries=0)
    def end(queue, trial):
        queue.post(Event(trial, ending=Ending.COMPLETED))
        os._exit(0)

    queue, trial = EventQueue(), small_trial()
    for _ in range(3):
        with pytest.raises(ray.exceptions.RayError):
            ray.get(end.remote(queue, trial))
        assert [(event.trial, event.ending) for event in queue.drain()] == [(trial, Ending.COMPLETED)]


@pytest.mark.usefixtures("cluster")
def test_an_end_that_nobody_takes_in_any_more_stops_no_trial():
    queue, trial = EventQueue(), small_trial()
    ray.kill(queue._queue)
    queue.post(Event(trial, ending=Ending.COMPLETED))
    assert queue.drain() == []

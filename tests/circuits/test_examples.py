import doctest
import importlib

import pytest

MODULES = ("spec", "memory", "statevector.simulate", "chain.expectations", "chain._amplitudes", "fourier.series")


@pytest.mark.parametrize("name", MODULES)
def test_every_example_of_a_docstring_prints_what_it_says(name):
    failed, tried = doctest.testmod(importlib.import_module(f"qsgd_ray.circuits.{name}"))
    assert tried > 0
    assert failed == 0

"""The picture of a response: one period, its extremes on the first and last line, every curve and the circuit."""

import math

import pytest
import torch

from qsgd_ray.circuits.fourier.series import FourierSeries, fourier_series
from qsgd_ray.circuits.spec import CircuitSpec
from qsgd_ray.reporting.circuit_plot import _sample, response_figure, terminal_plot


def waves(*coefficients):
    return FourierSeries(torch.tensor([coefficients], dtype=torch.float64))


# 1 + 2 cos x; cos(x / 2), whose period is twice as long; a constant.
WHOLE, HALF, CONSTANT = waves(1, 2, 0), waves(1, 0), waves(0.25)


def parsed(plot):
    """Labels and braille rows of a terminal plot."""
    lines = plot.split("\n")
    return [line.split("│")[0].strip() for line in lines[:-2]], [line.split("│")[1] for line in lines[:-2]], lines[-2:]


def dots(row):
    return sum((ord(character) - 0x2800).bit_count() for character in row)


@pytest.mark.parametrize(("series", "half"), [(WHOLE, math.pi), (HALF, 2 * math.pi), (CONSTANT, math.pi)])
def test_a_curve_spans_one_period_around_zero(series, half):
    x, f = _sample(series, 101)
    assert x[[0, 50, 100]].tolist() == pytest.approx([-half, 0, half])
    torch.testing.assert_close(f[0], f[-1])
    torch.testing.assert_close(f, series(x))


@pytest.mark.parametrize("n_qubits", [1, 2, 3])
@pytest.mark.parametrize("readout", ["amplitude", "probability"])
def test_the_period_is_that_of_the_circuit_and_no_shorter(n_qubits, readout):
    spec = CircuitSpec(n_qubits, 3)
    generator = torch.Generator().manual_seed(0)
    series = fourier_series(spec, torch.randn(spec.angles_shape(1), generator=generator, dtype=torch.float64), readout)
    x, f = _sample(series, 9)
    period = float(x[-1] - x[0])
    assert period == pytest.approx(4 * math.pi if readout == "amplitude" and n_qubits % 2 else 2 * math.pi)
    torch.testing.assert_close(series(x + period), f)
    assert not torch.allclose(series(x + period / 2), f)


@pytest.mark.parametrize(("width", "height"), [(72, 12), (20, 5), (16, 3)])
def test_the_extremes_are_on_the_first_and_the_last_line(width, height):
    labels, rows, _ = parsed(terminal_plot(WHOLE, width, height))
    assert labels == ["+3.000", *[""] * (height - 2), "-1.000"]
    assert [len(row) for row in rows] == [width] * height
    # The maximum, at 0, is in the middle of the first line; the minima, at -pi and pi, at the ends of the last.
    highest = [column for column, character in enumerate(rows[0]) if character != "⠀"]
    lowest = [column for column, character in enumerate(rows[-1]) if character != "⠀"]
    assert highest
    assert all(width // 4 < column < 3 * width // 4 for column in highest)
    assert (lowest[0], lowest[-1]) == (0, width - 1)
    assert not any(width // 4 < column < 3 * width // 4 for column in lowest)


def test_every_column_of_dots_has_a_dot():
    _, rows, _ = parsed(terminal_plot(WHOLE))
    left, right = 0x01 | 0x02 | 0x04 | 0x40, 0x08 | 0x10 | 0x20 | 0x80
    for column in zip(*rows, strict=True):
        cells = [ord(character) - 0x2800 for character in column]
        assert any(cell & left for cell in cells)
        assert any(cell & right for cell in cells)


@pytest.mark.parametrize(("series", "half"), [(WHOLE, "π"), (HALF, "2π")])
@pytest.mark.parametrize("width", [72, 21])
def test_the_ends_of_the_axis_are_named_below_it(series, half, width):
    *_, (axis, ends) = parsed(terminal_plot(series, width))
    assert axis == f"{'':>8} └{'─' * width}"
    assert ends.split() == [f"-{half}", "0", half]
    assert ends.index("-") == 10
    assert ends.index("0") == 10 + width // 2
    assert len(ends) == len(axis)


def test_a_constant_is_a_line_in_the_middle():
    labels, rows, _ = parsed(terminal_plot(CONSTANT, 20, 5))
    assert (labels[0], labels[-1]) == ("+1.250", "-0.750")
    assert [dots(row) for row in rows] == [0, 0, 40, 0, 0]


def test_a_figure_has_every_curve_and_the_drawing_below_them():
    drawing = CircuitSpec(2).draw()
    figure = response_figure({"one": WHOLE, "two": HALF}, "Two qubits", drawing)
    assert figure.layout.title.text == "Two qubits"
    assert [(trace.name, trace.mode) for trace in figure.data] == [("one", "lines"), ("two", "lines")]
    assert max(figure.data[0].y) == pytest.approx(3)
    assert (figure.data[0].x[-1], figure.data[1].x[-1]) == (pytest.approx(math.pi), pytest.approx(2 * math.pi))
    (annotation,) = figure.layout.annotations
    for line in drawing.split("\n"):
        assert line in annotation.text
    assert annotation.text.count("<br>") == drawing.count("\n")
    assert "monospace" in annotation.font.family


def test_a_taller_drawing_makes_a_taller_figure_with_room_for_it():
    small, large = (response_figure({"f": WHOLE}, "", CircuitSpec(n).draw()).layout for n in (1, 8))
    assert large.height - small.height == large.margin.b - small.margin.b > 0

"""The command `qsgd-ray circuit`: draw a circuit and its response to a score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qsgd_ray.config import StudyError
from qsgd_ray.reporting.console import plain_console


def circuit(
    qubits: Annotated[int, typer.Option(min=1, max=16, help="Qubits.")] = 4,
    depth: Annotated[int, typer.Option(min=1, help="Layers.")] = 2,
    entangle: Annotated[str, typer.Option(help="chain, ring, all or none.")] = "chain",
    rotations: Annotated[str, typer.Option(help="The rotations of a layer, in order.")] = "ry,rz",
    seed: Annotated[int, typer.Option(help="Of the drawn angles; 0: all angles are 0.")] = 1,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write circuit and curves as a page that works offline.")
    ] = None,
) -> None:
    """Draw a circuit, and how its amplitudes respond to a score that enters every layer (quantum attention)."""
    import math

    import torch

    from qsgd_ray.circuits.fourier.series import fourier_series, n_frequencies
    from qsgd_ray.circuits.select.auto import AutoBackend
    from qsgd_ray.circuits.spec import CircuitSpec
    from qsgd_ray.reporting.circuit_plot import response_figure, terminal_plot

    try:
        spec = CircuitSpec(qubits, depth, entangle, tuple(rotations.split(",")))  # type: ignore[arg-type]
    except ValueError as error:
        raise StudyError(str(error)) from None
    generator = torch.Generator().manual_seed(seed)
    angles = math.pi * (2 * torch.rand(spec.angles_shape(1), generator=generator, dtype=torch.float64) - 1) * bool(seed)
    console = plain_console()
    console.print(spec.draw(console.width), soft_wrap=True, highlight=False, markup=False)
    responses = {}
    others = (f" + ... + psi_{qubits - 1}", f" + ... + |psi_{qubits - 1}|^2") if qubits > 1 else ("", "")
    for readout, words in (("amplitude", f"Re(psi_0{others[0]})"), ("probability", f"|psi_0|^2{others[1]}")):
        responses[words] = fourier_series(spec, angles, readout)  # type: ignore[arg-type]
        waves = n_frequencies(spec, readout)  # type: ignore[arg-type]
        console.print(f"\n{words} of x, exact from {waves} circuits (angles of seed {seed}):", highlight=False)
        # The labels of the axis take ten columns.
        plot = terminal_plot(responses[words], width=max(16, min(72, console.width - 10)))
        console.print(plot, soft_wrap=True, highlight=False, markup=False)
    choice = AutoBackend().pick(spec, 1024)
    console.print(f"\n<Z_i> for the optimizer, 1,024 circuits at a time: auto picks {choice.name}.", highlight=False)
    console.print(choice.reason, style="dim", highlight=False, markup=False)
    if picture is not None:
        figure = response_figure(responses, str(spec), spec.draw())
        try:
            figure.write_html(picture, include_plotlyjs=True)
        except OSError as error:
            raise StudyError(f"--picture: got {picture}; allowed: a file that can be written ({error})") from None
        console.print(f"Picture: {picture.resolve()}", soft_wrap=True, highlight=False)

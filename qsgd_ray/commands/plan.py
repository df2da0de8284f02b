"""The command `qsgd-ray plan`: predict what a cluster would take from a study of limits, and how far that is known."""

from __future__ import annotations

from typing import Annotated, Any, get_args

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from qsgd_ray.config import Scope, StudyError
from qsgd_ray.reporting.console import plain_console
from qsgd_ray.storage import storage_at

_SOURCE = "results/scaling_limits"


def plan(
    qubits: Annotated[int, typer.Option(min=1, help="Of a circuit.")] = 4,
    model: Annotated[str, typer.Option(help="Parameters: 1.2B, 135M, 50000.")] = "1.2B",
    scope: Annotated[str, typer.Option(help="model, tensor or all.")] = "tensor",
    nodes: Annotated[int, typer.Option(min=1, help="For circuits.")] = 1,
    actors_per_node: Annotated[int, typer.Option(min=1, help="Of one core each.")] = 1,
    depth: Annotated[int, typer.Option(min=1, help="Layers.")] = 2,
    entangle: Annotated[str, typer.Option(help="chain, ring, all or none.")] = "chain",
    tensors: Annotated[int, typer.Option(min=1, help="Of the model, for scope tensor; Llama-3.2-1B has 146.")] = 146,
    tokens: Annotated[int, typer.Option(min=1, help="Of a step, to estimate its time.")] = 2048,
    step_seconds: Annotated[
        float | None, typer.Option(min=1e-9, help="A training step without circuits; else estimated.")
    ] = None,
    device_flops: Annotated[
        float | None, typer.Option(min=1, help="FLOP/s of all training devices; else one core, as measured.")
    ] = None,
    utilisation: Annotated[float, typer.Option(min=1e-3, max=1, help="Of these FLOP/s, to estimate.")] = 0.4,
    overhead: Annotated[float, typer.Option(min=1e-6, help="What circuits may add to a step.")] = 0.35,
    memory_per_node: Annotated[float, typer.Option(min=1e-3, help="GiB.")] = 16,
    price_per_node_hour: Annotated[float | None, typer.Option(min=0, help="In your money; none is known here.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="To count node-hours of.")] = 1000,
    source: Annotated[str, typer.Option("--from", metavar="DIR", help="Results of a study of limits.")] = _SOURCE,
) -> None:
    """Predict step time, memory, nodes and money of a cluster from a study of limits."""
    from qsgd_ray.limits import plan as planning
    from qsgd_ray.limits.rows import LimitsResults, is_limits

    place = storage_at(source, "--from")
    if not is_limits(place):
        raise StudyError(
            f"--from: got {source}, where no study of limits is; allowed: the folder that "
            "qsgd-ray run studies/scaling_limits.py writes (ten minutes; --set scale=short: one)"
        )
    for option, value, allowed in (
        ("--scope", scope, get_args(Scope)),
        ("--entangle", entangle, ("chain", "ring", "all", "none")),
    ):
        if value not in allowed:
            raise StudyError(f"{option}: got {value!r}; allowed: {', '.join(allowed)}")
    tables = LimitsResults(place).read()
    parameters = planning.parameters_of(model)
    if step_seconds is None:
        here = device_flops is None
        flops: Any = tables.provenance["measured"]["matmul_flops_per_s"] if here else device_flops
        training_s = planning.training_seconds(parameters, tokens, flops, utilisation)
        where = ", one core of the machine measured; give --step-seconds or --device-flops" if here else ""
        training_source = (
            f"6 x {parameters:.3g} x {tokens} FLOP at {100 * utilisation:g} % of {flops:.3g} a second{where}"
        )
    else:
        training_s, training_source = step_seconds, "given"
    run = planning.PlannedRun(
        qubits=qubits,
        parameters=parameters,
        scope=scope,  # type: ignore[arg-type]
        training_s=training_s,
        training_source=training_source,
        nodes=nodes,
        actors_per_node=actors_per_node,
        depth=depth,
        entangle=entangle,  # type: ignore[arg-type]
        tensors=tensors,
        overhead=overhead,
        memory_per_node=int(memory_per_node * 2**30),
        price_per_node_hour=price_per_node_hour,
        steps=steps,
    )
    predicted = planning.plan(run, tables)
    console = plain_console()
    title = f"{parameters:,} parameters, scope {scope}, {nodes:,} nodes of {actors_per_node} actors for circuits"
    table = Table(title=Text(title, style="bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    table.add_column("predicted", overflow="fold")
    table.add_column("known how", overflow="fold", style="dim")
    for quantity, value, basis in planning.lines(predicted):
        table.add_row(Text(quantity), Text(value), Text(basis))
    console.print(table)
    hardware = tables.provenance["hardware"]
    processor = hardware.get("processor") or hardware.get("machine") or "an unknown machine"
    machine = f"Seconds are those of one core of {processor}, network: loopback."
    console.print(machine, style="dim", soft_wrap=True, highlight=False)
    if planning.is_extrapolated(predicted):
        warning = "Extrapolated: no size that large was measured, and the law may end before it."
        console.print(warning, style="yellow", soft_wrap=True, highlight=False)

"""Claims, ladder and map for a terminal: what the analysis found in, a rich table each out."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from qsgd_ray.analysis.claims import Claim, Finding
from qsgd_ray.analysis.effect_map import EffectMap
from qsgd_ray.analysis.ladder import WORDS, Ladder

NONE = "–"
STYLES = {
    Finding.SUPPORTED: "bold green",
    Finding.CONTRADICTED: "bold red",
    Finding.INCONCLUSIVE: "bold yellow",
    Finding.NOT_MEASURED: "dim",
}
# What a number of each unit is multiplied with, how many digits it keeps, and what follows it.
UNITS = {"points": (100.0, 2, ""), "share": (100.0, 1, " %"), "nats": (1.0, 4, "")}


def claims_table(claims: Sequence[Claim]) -> RenderableType:
    """What the paper says, what came out, and a reason for each."""
    table = Table(title="The paper's claims", title_style="bold", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("claim", "by arm", "claimed", "measured", "95 % interval", "finding"):
        table.add_column(column, overflow="fold")
    for claim in claims:
        table.add_row(
            Text(claim.id),
            Text(claim.arm),
            told(claim.claimed, claim.unit),
            told(claim.measured, claim.unit),
            interval_told(claim),
            Text(claim.finding, style=STYLES[claim.finding]),
        )
    reasons = [Text.assemble((f"{c.id}: ", "bold"), f"{c.text[0].upper()}{c.text[1:]}. {c.why}") for c in claims]
    return Group(table, *reasons)


def told(value: float | None, unit: str) -> str:
    """A number of a claim with its sign: points of accuracy, percent of change, nats."""
    if value is None:
        return NONE
    factor, decimals, suffix = UNITS[unit]
    return f"{factor * value:+.{decimals}f}{suffix}".replace("-", "−")


def interval_told(claim: Claim) -> str:
    return NONE if claim.interval is None else " to ".join(told(edge, claim.unit) for edge in claim.interval)


# What a template shows of a claim.
FILTERS = {
    "claimed": lambda claim: told(claim.claimed, claim.unit),
    "measured": lambda claim: told(claim.measured, claim.unit),
    "interval_told": interval_told,
}


def ladders_told(ladders: Sequence[Ladder]) -> RenderableType:
    """One line an arm."""
    lines = [Text(f"{ladder.told}{_missing(ladder)}") for ladder in ladders]
    return Group(Text("The ladder of controls", style="bold"), *lines)


def _missing(ladder: Ladder) -> str:
    if not ladder.missing:
        return ""
    return f" Not in the study: {', '.join(WORDS[name] for name in ladder.missing)}."


def map_told(found: EffectMap) -> RenderableType:
    """How many settings of the map show what."""
    counts: dict[str, int] = {}
    for cell in found.cells:
        counts[cell.effect.verdict] = counts.get(cell.effect.verdict, 0) + 1
    words = ", ".join(f"{count} {word}" for word, count in counts.items())
    axes = " and ".join(path.rpartition(".")[2].rstrip("_") for path in found.axes)
    return Text.assemble(
        ("The map\n", "bold"),
        f"{found.arm} at {len(found.cells)} settings of {axes} against {found.baseline}: {words}.",
    )

"""Format numbers of any metric: a share in percent and points, anything else in its own unit, to a tenth of the margin.

A minus sign is the typographic one, and a missing number a dash.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_MISSING = "–"
_MOST_DECIMALS = 12
_LARGE = 1e15


@dataclass(frozen=True)
class MetricNumbers:
    """Formats of a metric's numbers.

    Attributes:
        kind: `share`: fractions of one, shown in percent and percentage points; anything else: shown as they are.
        unit: of a number that is no share, such as `nats`; empty: it has none.
        margin: the smallest difference that matters, > 0; numbers show a tenth of it.

    Example:
        >>> MetricNumbers("mean", "nats", 0.02).difference(-0.1234)
        '−0.123'
    """

    kind: str
    unit: str
    margin: float

    @property
    def unit_of_values(self) -> str:
        """The unit in which values are shown; empty where there is none."""
        return "%" if self.kind == "share" else self.unit

    @property
    def unit_of_differences(self) -> str:
        """The unit in which differences are shown; empty where there is none."""
        return "points" if self.kind == "share" else self.unit

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> MetricNumbers:
        """Return the formats for the numbers of a verdict's document."""
        return cls(document["metric"]["kind"], document["metric"]["unit"], document["rule"]["margin"])

    def shown(self, value: float) -> float:
        """Return a number as figures draw it: of a share its percent."""
        return 100 * value if self.kind == "share" else value

    def value(self, value: float | None) -> str:
        """Format a value of the metric."""
        return _MISSING if value is None else self._text(value, "")

    def difference(self, value: float | None) -> str:
        """Format a difference of two values, with its sign."""
        return _MISSING if value is None else self._text(value, "+")

    def size(self, value: float) -> str:
        """Format the size of a difference without a sign, with its unit: 1.20 points."""
        return f"{self._text(abs(value), '')} {self.unit_of_differences}".rstrip()

    def interval(self, edges: Mapping[str, float] | None, *, sign: bool = True) -> str:
        """Format an interval: −0.12 to +0.34.

        Args:
            edges: `low` and `high`; None where it is missing.
            sign: a plus before what is above zero.
        """
        if edges is None:
            return _MISSING
        return " to ".join(self._text(edges[edge], "+" if sign else "") for edge in ("low", "high"))

    def _text(self, value: float, sign: str) -> str:
        number = self.shown(value)
        decimals = 2 if self.kind == "share" else 1 - math.floor(math.log10(self.margin))
        if decimals > _MOST_DECIMALS or abs(number) >= _LARGE:
            text = f"{number:{sign}.4g}"
        else:
            text = f"{number:{sign}.{max(decimals, 0)}f}"
        return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")

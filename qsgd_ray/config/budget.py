"""Budget of a study: the hours and the money that all of its runs together may take, and what nodes cost."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, PlainValidator, model_validator

from qsgd_ray.config._numbers import MOST_ITEMS, Real
from qsgd_ray.config._problems import refusal
from qsgd_ray.config._settings import Settings
from qsgd_ray.config.worker_resources import NODE_KIND

# The price of a node of no kind that has one.
_DEFAULT = "default"
# Joins the kinds of a node that carries several.
_AND = "+"
_MOST = 1e9
_S_PER_HOUR = 3600.0


def _prices(value: Any) -> float | dict[str, float]:
    """Return a price, or prices by kind of node with one for all others, as plain numbers."""
    if _is_price(value):
        return float(value)
    if not isinstance(value, Mapping) or not 0 < len(value) <= MOST_ITEMS:
        raise refusal(f"a price from 0 to {_MOST:g}, or prices by kind of node such as {{'{_DEFAULT}': 0.2}}")
    for kind, price in value.items():
        if not isinstance(kind, str) or not re.fullmatch(NODE_KIND, kind):
            raise refusal(f"kinds of nodes in lower case, as resources name them, and {_DEFAULT}; got {kind!r:.60}")
        if not _is_price(price):
            raise refusal(f"a price from 0 to {_MOST:g} for each kind of node; got {price!r:.60} for {kind}")
    if _DEFAULT not in value:
        raise refusal(f"a price for {_DEFAULT} too, which nodes of another kind cost; got {', '.join(value)}")
    return {kind: float(price) for kind, price in value.items()}


def _is_price(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST


class Budget(Settings):
    """Hours and money that all runs of a study together may take; at the first limit no new trial starts.

    Hours are those of a study's process, from the start of each run to its end, with all that is idle in them. Money is
    node-hours by their price: a private Ray is one node; of a cluster every node counts on which a process of the study
    may be (`resources.worker_nodes`, `resources.circuit_nodes`; all with CPUs where these are None), in use or not.

    Attributes:
        hours: the most hours, > 0, to 1e9. None: no limit.
        cost: the most money, > 0, to 1e9, in the currency of the prices. None: no limit.
        price_per_node_hour: the price of a node for an hour, 0 to 1e9; or by kind of node, as resources name kinds,
            with one for `default`: `{"sim": 0.2, "train": 3.0, "default": 0}`. A node of several kinds costs what the
            dearest does. None: money is not counted.

    Raises:
        InvalidSettings: nothing is set, or a cost is limited without a price above 0.

    Example:
        >>> budget = Budget(hours=2, price_per_node_hour={"train": 3.0, "default": 0.2})
        >>> budget.money({"": 3600.0, "train": 7200.0})
        6.2
    """

    hours: Annotated[Real, Field(gt=0, le=_MOST)] | None = None
    cost: Annotated[Real, Field(gt=0, le=_MOST)] | None = None
    price_per_node_hour: Annotated[Real | dict[str, Real], PlainValidator(_prices)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        prices = self.price_per_node_hour
        if self.hours is None and self.cost is None and prices is None:
            raise refusal("hours, cost or price_per_node_hour; got none of them")
        if self.cost is not None and not max(prices.values() if isinstance(prices, dict) else [prices or 0.0]):
            raise refusal(f"cost with a price_per_node_hour above 0; got {prices}")
        return self

    def money(self, node_seconds: Mapping[str, float]) -> float | None:
        """Return what nodes have cost; None without a price.

        Args:
            node_seconds: seconds of all nodes of a kind by its name (`node_label`), >= 0.
        """
        if self.price_per_node_hour is None:
            return None
        return math.fsum(self._price(label) * seconds for label, seconds in node_seconds.items()) / _S_PER_HOUR

    def is_spent(self, seconds: float, node_seconds: Mapping[str, float]) -> bool:
        """Return True where a limit is reached.

        Args:
            seconds: of all runs, >= 0.
            node_seconds: of all nodes by kind.
        """
        money = self.money(node_seconds)
        return (self.hours is not None and seconds >= self.hours * _S_PER_HOUR) or (
            self.cost is not None and money is not None and money >= self.cost
        )

    def share(self, n_parts: int) -> Budget:
        """Return one of `n_parts` equal shares of the limits, at the same prices."""
        limits = {"hours": self.hours, "cost": self.cost}
        return self.model_copy(update={name: most and most / n_parts for name, most in limits.items()})

    def _price(self, label: str) -> float:
        prices = self.price_per_node_hour
        if not isinstance(prices, dict):
            return prices or 0.0
        named = [prices[kind] for kind in label.split(_AND) if kind in prices and kind != _DEFAULT]
        return max(named, default=prices[_DEFAULT])


def node_label(kinds: list[str]) -> str:
    """Return the name under which the seconds of a node are counted: its kinds, sorted; empty without one."""
    return _AND.join(sorted(kinds))

"""The paper's Q around a step of any optimizer: its groups in; lr * lambda * Q subtracted beside its step, out.

    theta <- theta' - lr * lambda * Q,  Q_i = s_i(theta) * g_i

theta' is where the optimizer's own step leads from theta. Signal and gradient are taken before it, as optimizers may
change both. For AdamW, `SuperpositionalAdamW` does the same in fewer passes, to its last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from qsgd_ray.circuits.backends.protocol import CircuitBackend
from qsgd_ray.config import Perturbation
from qsgd_ray.optimizer._engine import STEPS
from qsgd_ray.optimizer._gather import Scale, all_native
from qsgd_ray.optimizer._gathered_step import _gather, _perturbation, _record, _step_size
from qsgd_ray.optimizer._layout import Group, Layout, Model, StepOptions, layout_of
from qsgd_ray.optimizer._norms import NormMeans, StepNorms
from qsgd_ray.optimizer._prefetch import Prefetch
from qsgd_ray.optimizer._reports import means_of, report, report_state, restore_prefetch
from qsgd_ray.optimizer._shards import aligned_gradients, local
from qsgd_ray.optimizer.signals import make_signal
from qsgd_ray.optimizer.telemetry import Telemetry


class _Taken(NamedTuple):
    """State before a step that is needed after it.

    Attributes:
        q: Q of all perturbed parts, end to end; None where nothing is perturbed.
        scales: -lr * lambda of each parameter group.
        norms: takes the norms; None where this step is not sampled.
        before: copies of the parameters that this process reports, of a sampled step, by their parameter group.
    """

    q: Tensor | None
    scales: list[Scale]
    norms: StepNorms | None
    before: list[list[tuple[Tensor, Tensor]]]


class Around:
    """The perturbation around one or several optimizers, and what is cached of it from step to step."""

    def __init__(
        self,
        groups: Sequence[Group],
        perturbation: Perturbation,
        circuits: CircuitBackend | None,
        seed: int,
        telemetry_every: int | None,
    ) -> None:
        """Make the signal, and give each group its `lambda_` and its count of steps, which are saved with it."""
        signal = make_signal(perturbation, circuits)
        self.groups = groups
        for group in groups:
            group["lambda_"] = perturbation.lambda_
            group[STEPS] = 0
        self._options = StepOptions.of(perturbation, signal)._replace(chunked=False)
        self._prefetch = Prefetch(signal, seed)
        self._telemetry_every = telemetry_every
        self._means = NormMeans()
        self._layout: Layout | None = None
        self._taken: _Taken | None = None

    @property
    def _n_steps(self) -> int:
        return int(self.groups[0][STEPS])

    def _views(self) -> list[Group]:
        """Return the groups as a layout knows them; optimizers of other kinds lack most of these keys."""
        return [
            {
                "params": group["params"],
                "lr": group["lr"],
                "lambda_": group["lambda_"],
                "maximize": bool(group.get("maximize", False)),
                "amsgrad": False,
                "capturable": False,
                "differentiable": False,
            }
            for group in self.groups
        ]

    def _lay_out(self, views: list[Group]) -> Layout:
        self._layout = layout_of(views, self._options, self._layout)
        return self._layout

    @torch.no_grad()
    def take(self) -> None:
        """Compute Q at the parameters and gradients as they are now, before the optimizer's step.

        Raises:
            ValueError: a parameter that cannot be cut into blocks.
            CircuitError: the backend's.
        """
        views = self._views()
        layout = self._lay_out(views)
        model = Model(layout, views, {})
        rates = [float(group["lr"]) for group in views]
        sampled = self._telemetry_every is not None and (self._n_steps + 1) % self._telemetry_every == 0
        norms = StepNorms(len(views)) if sampled and all(rates) else None
        q, scales = None, []
        if layout.blocks is not None:
            gradients = [parameter.grad for parameter in layout.parameters]
            native = all_native(gradients)
            with nullcontext() if native else aligned_gradients(layout.parameters):
                gathered = _gather(model, layout.blocks, self._prefetch, self._n_steps, native)
                if gathered is not None:
                    q = _perturbation(model, self._options, gathered).q
                    scales = [Scale(parts, -_step_size(self._options, views[n])) for n, parts in gathered.which.items()]
                    if norms is not None:
                        _record(model, gathered, q, norms)
        before: list[list[tuple[Tensor, Tensor]]] = []
        if norms is not None:
            before = [[(p, local(p).detach().clone()) for p in layout.reported(view["params"])] for view in views]
        self._taken = _Taken(q, scales, norms, before)

    @torch.no_grad()
    def add(self) -> None:
        """Subtract lr * lambda * Q of `take`, after the optimizer's step, and submit the next step's circuits."""
        assert self._taken is not None
        taken, self._taken = self._taken, None
        views = self._views()
        layout = self._lay_out(views)  # an optimizer may have put its parameters elsewhere
        if taken.norms is not None:
            for number, pairs in enumerate(taken.before):
                rate = float(views[number]["lr"])
                lengths = [torch.linalg.vector_norm(local(p).detach() - old) / rate for p, old in pairs]
                taken.norms.adam[number].extend(lengths)
            device = layout.memory[0].device if layout.memory else torch.device("cpu")
            self._means.add(layout.processes.sum_(taken.norms.squares(device)))
        if taken.q is not None and layout.blocks is not None:
            layout.blocks.thetas.add_(taken.q, taken.scales)
        for group in self.groups:
            group[STEPS] += 1
        self._prefetch.submit_next(layout, self._n_steps)

    def telemetry(self) -> Telemetry:
        """Return the report since the last call, and start the next window of the norms."""
        means, self._means = self._means, NormMeans()
        return report(means, self._prefetch)

    def telemetry_state(self) -> dict[str, Any]:
        """Return counts and norms so far as plain numbers."""
        return report_state(self._means, self._prefetch)

    def load_telemetry_state(self, state: dict[str, Any]) -> None:
        """Go on from a `telemetry_state`, after parameters and groups have been loaded."""
        self._means = means_of(state)
        restore_prefetch(self._prefetch, state, lambda: self._lay_out(self._views()), self._n_steps)

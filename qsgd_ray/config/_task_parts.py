"""Parts of a task that others than its training read: modules that it needs, long steps, the tables of its report.

Shipped tasks and users' own have the same parts; a class states what is otherwise for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from qsgd_ray.config._settings import Settings


class _TaskParts(Settings):
    """Base of all tasks; each part has a default that fits small models."""

    @property
    def required_modules(self) -> Mapping[str, str]:
        """Modules that a process needs to train this task, each with the field that asks for it, such as `workload`."""
        return {}

    @property
    def has_long_steps(self) -> bool:
        """True where a step takes a second or more: Ray Train then asks its workers every few seconds alone."""
        return False

    @property
    def is_language_model(self) -> bool:
        """True where losses are in nats a token, and throughput in tokens counts: reports then show both."""
        return False

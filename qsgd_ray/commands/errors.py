"""Messages of the command about errors."""

from __future__ import annotations

from qsgd_ray.reporting.console import plain_console


def complain(error: BaseException) -> None:
    """Print an error on standard error, in one line."""
    plain_console(stderr=True).print(f"qsgd-ray: {error}", soft_wrap=True)

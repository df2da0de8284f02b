"""Messages of the command about errors."""

from __future__ import annotations

from rich.console import Console


def complain(error: BaseException) -> None:
    """Print an error on standard error, in one line."""
    Console(stderr=True).print(f"qsgd-ray: {error}", soft_wrap=True, highlight=False, markup=False)

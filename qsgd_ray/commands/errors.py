"""What is wrong, in one line on standard error."""

from __future__ import annotations

from rich.console import Console


def complain(error: BaseException) -> None:
    """As everything that this command complains of."""
    Console(stderr=True).print(f"qsgd-ray: {error}", soft_wrap=True, highlight=False, markup=False)

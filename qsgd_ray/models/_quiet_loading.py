"""Load models without transformers' progress bars and load reports, which would come with every trial.

What a report says is in the loading info, too; who loads says what a user has to know of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LOADER = "transformers.modeling_utils"


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Silence the progress bars and the load report of transformers in the block; other warnings come through."""
    from transformers.utils import logging as messages

    def no_bar(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return messages.EmptyTqdm(*args, **kwargs)

    logger, before = logging.getLogger(_LOADER), messages.set_tqdm_hook(no_bar)
    logger.addFilter(_is_no_report)
    try:
        yield
    finally:
        logger.removeFilter(_is_no_report)
        messages.set_tqdm_hook(before)


def _is_no_report(record: logging.LogRecord) -> bool:
    return "LOAD REPORT" not in record.getMessage()

"""The Hugging Face hub: what to load comes in; it goes out from the local cache, from the network, or as one line.

What the cache has is taken as it is, without asking the network: quick, and the same tomorrow. Without a network the
answer comes at once; huggingface_hub by itself tries six times, for 23 s a file (2.4.0, 2026-11-24).
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TypeVar

from qsgd_ray.config import StudyError
from qsgd_ray.config.errors import one_line

TIMEOUT_S = 3.0

T = TypeVar("T")


def load_from_hub(field: str, name: str, get: Callable[[bool], T], instead: str) -> T:
    """What `get(local_files_only)` returns: with True first, and with False where that fails and the hub answers.

    `get` raises OSError for what is not there. StudyError, one line: `field` got `name`, which is missing, and how to
    get it; `instead` says what else the field may be.
    """
    try:
        return get(True)
    except OSError:
        pass
    endpoint, why_not = _endpoint()
    if why_not is None:
        try:
            return get(False)
        except OSError as error:
            why_not = one_line(error, limit=200)
    raise StudyError(
        f"{field}: got {name!r}, which is not in the Hugging Face cache of this machine, and {endpoint} does not give "
        f"it ({why_not}); allowed: what `hf download` has fetched (gated: after `hf auth login`), or {instead}"
    ) from None


def _endpoint() -> tuple[str, str | None]:
    """The hub's address, and why it cannot be asked; None: it answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return constants.ENDPOINT, "HF_HUB_OFFLINE is set"
    try:
        # It takes proxies from the environment, as huggingface_hub does.
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        urllib.request.urlopen(request, timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError:
        pass  # Whatever it says, it answers.
    except OSError as error:
        return constants.ENDPOINT, one_line(getattr(error, "reason", error), limit=200)
    return constants.ENDPOINT, None

"""The Hugging Face hub: a loading function comes in; its result goes out, from the cache or from the network.

A file in the cache is used as it is, without a request to the network: quick, and the same tomorrow. Without a network
the error comes at once; huggingface_hub by itself tries six times, for 23 s a file (2.4.0, 2026-11-24).
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TypeVar

from qsgd_ray.config import StudyError
from qsgd_ray.config.errors import one_line

_TIMEOUT_S = 3.0

_T = TypeVar("_T")


def load_from_hub(field: str, name: str, load: Callable[[bool], _T], alternative: str) -> _T:
    """Load a model or a file from the local cache, else from the hub.

    Args:
        field: name of the setting that asked for it, for the error, e.g. "model".
        name: its value, e.g. "meta-llama/Llama-3.2-1B-Instruct".
        load: called with `local_files_only`, True first, then False if the hub answers; raises OSError for what is not
            there.
        alternative: what else the setting may be, for the error.

    Returns:
        The result of `load`.

    Raises:
        StudyError: one line that says what is missing, why the hub does not give it, and how to get it.
    """
    try:
        return load(True)
    except OSError:
        pass
    endpoint, reason = _endpoint()
    if reason is None:
        try:
            return load(False)
        except OSError as error:
            reason = one_line(error, limit=200)
    raise StudyError(
        f"{field}: got {name!r}, which is not in the Hugging Face cache of this machine, and {endpoint} does not give "
        f"it ({reason}); allowed: what `hf download` has fetched (gated: after `hf auth login`), or {alternative}"
    ) from None


def _endpoint() -> tuple[str, str | None]:
    """Return the hub's address and the reason why it gives no answer; None: it answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return constants.ENDPOINT, "HF_HUB_OFFLINE is set"
    try:
        # It takes proxies from the environment, as huggingface_hub does.
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        urllib.request.urlopen(request, timeout=_TIMEOUT_S).close()  # nosec B310 # the user's HF_ENDPOINT
    except urllib.error.HTTPError:
        pass  # An error is an answer too.
    except OSError as error:
        return constants.ENDPOINT, one_line(getattr(error, "reason", error), limit=200)
    return constants.ENDPOINT, None

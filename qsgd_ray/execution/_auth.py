"""Give a private Ray a token of its own, so that other users of the machine cannot use it.

Ray listens on loopback, which all users of a machine share, and runs what it is sent. With a token it answers only
those who know it. The token lies in the environment of this process and of those that it starts, which the system shows
to their owner alone, and in no file.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MODE, _TOKEN, _TOKEN_FILE = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
# A token as Ray makes them is at least this long.
_TOKEN_BYTES = 32


@contextmanager
def private_token() -> Iterator[None]:
    """Set the environment of a private Ray's authentication within the block.

    A user's RAY_AUTH_MODE stays: with `disabled` everybody on this machine can use the Ray, with `token` the user's own
    token counts where there is one. Where the variable is not set, and where `token` has no token, the block has a new
    one.
    """
    before = {name: os.environ.get(name) for name in (_MODE, _TOKEN, _TOKEN_FILE)}
    mode = (before[_MODE] or "").lower()
    if mode == "" or (mode == "token" and not _has_token()):
        os.environ[_MODE] = "token"
        os.environ[_TOKEN] = secrets.token_hex(_TOKEN_BYTES)
        os.environ.pop(_TOKEN_FILE, None)
    _read_again()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_again()


def _has_token() -> bool:
    """Return whether Ray would find a token of the user's (ray/_private/authentication, 2.60)."""
    return bool(os.environ.get(_TOKEN) or os.environ.get(_TOKEN_FILE) or (Path.home() / ".ray" / "auth_token").exists())


def _read_again() -> None:
    """Let Ray's core read the environment again; it does so once, when it is imported, and keeps the token it saw.

    The mode comes first: threads of a Ray that just ended would otherwise miss the token that the old mode asks for
    (ray/_private/authentication_test_utils.py, 2.60).
    """
    if "ray" in sys.modules:
        from ray import _raylet  # compiled, without types

        core: Any = _raylet
        core.Config.initialize("")
        core.AuthenticationTokenLoader.instance().reset_cache()

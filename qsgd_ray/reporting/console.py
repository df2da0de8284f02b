"""Console of the commands and of a running study: texts are printed as they are, on every terminal."""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Iterable
from typing import IO, Any, cast

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

# Signs that the tables use, as a terminal without them shows them.
_PLAIN = {
    "−": "-", "–": "-", "—": "-", "±": "+/-", "×": "x", "·": "*", "÷": "/", "√": "sqrt ", "²": "^2", "³": "^3",
    "½": "1/2", "µ": "u", "λ": "lambda", "π": "pi", "θ": "theta", "ψ": "psi", "≤": "<=", "≥": ">=", "→": "->",
    "…": "...", "▲": "^", "▼": "v", "«": "<", "»": ">", "■": "*", "│": "|", "─": "-", **dict.fromkeys("┌┐└┘├┤┬┴┼", "+"),
    # Plots are made of braille.
    chr(0x2800): " ", **dict.fromkeys(map(chr, range(0x2801, 0x2900)), "*"),
}  # fmt: skip
# All but the ends of lines and tabs, with the signs that turn the direction of writing.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_ERRORS = "qsgd_ray.plain"


def plain_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """Return a console that takes every text for text.

    Square brackets in a question, a path or an error are no markup, and control characters are shown, not obeyed. A
    sign that the terminal's encoding lacks is replaced, and never an error.

    Args:
        stderr: True prints on standard error, False on standard output.
        quiet: True prints nothing.
    """
    stream = cast(IO[str], _PlainWhereNeeded(sys.stderr if stderr else sys.stdout))
    return _PrintableConsole(file=stream, quiet=quiet, markup=False, highlight=False, emoji=False)


class _PrintableConsole(Console):
    """Console that shows control characters in place of sending them: a text from a file may hold any."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a renderable, every control character in its text written out."""
        for segment in super().render(renderable, options):
            if segment.control is None and _CONTROL.search(segment.text):
                yield Segment(_CONTROL.sub(lambda sign: ascii(sign[0])[1:-1], segment.text), segment.style)
            else:
                yield segment


def degrade_output() -> None:
    """Let standard output and standard error replace what their encoding lacks, for prints that use no console."""
    _register()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=_ERRORS)


class _PlainWhereNeeded:
    """Stream that writes to another; a sign that the other's encoding lacks is replaced."""

    def __init__(self, stream: IO[str]) -> None:
        _register()
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write the text; return its length."""
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        return self._stream.write(text.encode(encoding, _ERRORS).decode(encoding))


def _register() -> None:
    codecs.register_error(_ERRORS, _plain)


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Return plain characters in place of those that cannot be encoded, and where to go on; a handler of codecs."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end

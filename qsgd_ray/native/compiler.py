"""Compile C++ with the machine's own compiler and load it; do without where that fails.

It does what torch.compile does, at a twentieth of its time and of its cost a call. Nothing is cached on disk: a source
of a hundred lines compiles in 0.4 s, and a cache would have to tell processors, compilers and owners apart.
"""

from __future__ import annotations

import ctypes
import logging
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from qsgd_ray.config.errors import one_line

_log = logging.getLogger(__name__)

# Not -ffast-math: NaN and infinity are answers. Without errno and traps, sqrt and rint become single instructions.
# Without contraction, a loop's rounding is as it is written: the same bits in every variant and on every processor.
_FLAGS = (
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-fopenmp",
    "-std=c++17",
    "-shared",
    "-fPIC",
)
# A model of this many coordinates is worth half a second of compiling: a kernel saves 2 to 3 ns a step for each.
NATIVE_FROM = 2**20
_COMPILERS = ("c++", "g++", "clang++")
_TIMEOUT_S = 120

_libraries: dict[tuple[str, tuple[str, ...]], ctypes.CDLL | None] = {}


@cache
def source(name: str) -> str:
    """Return the text of a C++ file of this folder, as "gather.cpp", with the folder's own headers in it."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return re.sub(r'^#include "(.+)"$', lambda include: source(include[1]), text, flags=re.MULTILINE)


def library(text: str, *definitions: str) -> ctypes.CDLL | None:
    """Compile C++ and load it, once a process for each source and set of definitions.

    Args:
        text: the C++ source (see `source`). Its functions are `extern "C"`.
        definitions: macros to define (`-D`), as "SINE".

    Returns:
        The loaded library; None, after one warning in the log, where it cannot be compiled. $CXX names the compiler;
        without it the first of c++, g++ and clang++ that is on the path is taken.
    """
    key = (text, definitions)
    if key not in _libraries:
        try:
            _libraries[key] = _built(text, definitions)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            _log.warning("no C++ kernel, done without it: %s", _reason(error))
            _libraries[key] = None
    return _libraries[key]


def _built(text: str, definitions: tuple[str, ...]) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="qsgd_ray_") as folder:
        source_file, binary = Path(folder, "kernel.cpp"), Path(folder, "kernel.so")
        source_file.write_text(text, encoding="utf-8")
        macros = [f"-D{definition}" for definition in definitions]
        command = [*_compiler(), *_FLAGS, *macros, str(source_file), "-o", str(binary)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)  # nosec B603 # own source
        # Its OpenMP is torch's: libraries that torch has loaded come first when symbols are looked up.
        return ctypes.CDLL(str(binary))


def _compiler() -> list[str]:
    """Return the compiler's command, from $CXX or the path; FileNotFoundError where there is none."""
    if named := shlex.split(os.environ.get("CXX", "")):
        return named
    path = next((path for name in _COMPILERS if (path := shutil.which(name))), None)
    if path is None:
        raise FileNotFoundError(f"none of {', '.join(_COMPILERS)} is on the path")
    return [path]


def _reason(error: Exception) -> str:
    """Return the first line that the compiler wrote, or that the error says."""
    return one_line(getattr(error, "stderr", None) or error, part="first")

"""C++ in, a loaded library out, by the machine's own compiler; None where there is none.

For what torch.compile does, at a twentieth of its time and of its cost a call. Nothing is kept on disk: a source of a
hundred lines takes 0.4 s, and a cache would have to tell apart processors, compilers and owners.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from qsgd_ray.config.errors import one_line

log = logging.getLogger(__name__)

# Not -ffast-math: NaN and infinity are answers. Without errno and traps, sqrt and rint become single instructions.
# Without contraction, a loop's rounding is as it is written: the same bits in every variant and on every processor.
FLAGS = (
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
# Of a model, from so many coordinates on, a kernel is worth half a second of compiling: each saves 2 to 3 ns a step.
NATIVE_FROM = 2**20
COMPILERS = ("c++", "g++", "clang++")
TIMEOUT_S = 120

_libraries: dict[tuple[str, tuple[str, ...]], ctypes.CDLL | None] = {}


def library(source: str, *definitions: str) -> ctypes.CDLL | None:
    """The source as compiled with -D of the definitions; None, and one line in the log, where that fails.

    Once a process and set of definitions. $CXX names the compiler, else the first that is found of `COMPILERS`.
    """
    key = (source, definitions)
    if key not in _libraries:
        try:
            _libraries[key] = _built(source, definitions)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            log.warning("no C++ kernel, done without it: %s", _reason(error))
            _libraries[key] = None
    return _libraries[key]


def _built(source: str, definitions: tuple[str, ...]) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="qsgd_ray_") as folder:
        text, binary = Path(folder, "kernel.cpp"), Path(folder, "kernel.so")
        text.write_text(source)
        command = [*_compiler(), *FLAGS, *(f"-D{one}" for one in definitions), str(text), "-o", str(binary)]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
        # Its OpenMP is torch's: what torch has loaded comes first when names are looked up.
        return ctypes.CDLL(str(binary))


def _compiler() -> list[str]:
    if named := shlex.split(os.environ.get("CXX", "")):
        return named
    found = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if found is None:
        raise FileNotFoundError(f"none of {', '.join(COMPILERS)} is on the path")
    return [found]


def _reason(error: Exception) -> str:
    return one_line(getattr(error, "stderr", None) or error, part="first")

"""Load the C++ kernels: as they were built with the package, or compiled by the machine's own compiler.

Compiling does what torch.compile does, at a twentieth of its time and of its cost a call. Nothing that is compiled on
the spot is kept on disk: a small source compiles in 0.4 s, and a cache would have to tell processors, compilers and
owners apart. The large ones are built at installation (setup.py).
"""

from __future__ import annotations

import ctypes
import logging
import subprocess
import tempfile
from pathlib import Path

import torch

from qsgd_ray.config.errors import one_line
from qsgd_ray.native._build import BUILT, Definitions, built_file, compile_source, digest, levels, source

_log = logging.getLogger(__name__)

# A model of this many coordinates is worth half a second of compiling: a kernel saves 2 to 3 ns a step for each.
NATIVE_FROM = 2**20

_libraries: dict[tuple[str, Definitions], ctypes.CDLL | None] = {}


def kernel(name: str, *definitions: str) -> ctypes.CDLL | None:
    """Load a kernel of this folder, once a process for each set of definitions.

    Args:
        name: the file, as "program.cpp". Its functions are `extern "C"`.
        definitions: macros to define (`-D`), as "SINE" or "DEPTH=2".

    Returns:
        The loaded library: that which was built with the package from this very source, or one that is compiled now;
        None, after one warning in the log, where neither can be. $CXX names the compiler; without it the first of c++,
        g++ and clang++ that is on the path is taken.
    """
    text = source(name)
    if (text, definitions) not in _libraries and (built := _built(name, text, definitions)) is not None:
        _libraries[text, definitions] = built
    return _library(text, *definitions)


def _library(text: str, *definitions: str) -> ctypes.CDLL | None:
    """Compile C++ and load it, once a process for each source and set of definitions; None as `kernel` says."""
    key = (text, definitions)
    if key not in _libraries:
        try:
            _libraries[key] = _compiled(text, definitions)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            _log.warning("no C++ kernel, done without it: %s", _reason(error))
            _libraries[key] = None
    return _libraries[key]


def _built(name: str, text: str, definitions: Definitions) -> ctypes.CDLL | None:
    """Return the library that was built from this source for the largest instruction set that this machine has."""
    if (name, definitions) not in BUILT:
        return None
    capability = torch.backends.cpu.get_cpu_capability()
    here = list(levels())
    if here != ["generic"]:
        here = {"AVX512": here, "AVX2": here[:1]}.get(capability, [])
    for level in reversed(here):
        file = built_file(name, definitions, level)
        try:
            # Its OpenMP is torch's, which is loaded by that name already.
            loaded = ctypes.CDLL(str(file))
            carried = ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(loaded, "source_digest")))
            if carried == digest(text, definitions).encode():
                return loaded
        except (OSError, ValueError):  # it was not built, or of another time
            continue
    return None


def _compiled(text: str, definitions: Definitions) -> ctypes.CDLL:
    with tempfile.TemporaryDirectory(prefix="qsgd_ray_") as folder:
        binary = Path(folder, "kernel.so")
        compile_source(text, definitions, binary, ("-march=native",))
        # Its OpenMP is torch's: libraries that torch has loaded come first when symbols are looked up.
        return ctypes.CDLL(str(binary))


def _reason(error: Exception) -> str:
    """Return the first line that the compiler wrote, or that the error says."""
    return one_line(getattr(error, "stderr", None) or error, part="first")

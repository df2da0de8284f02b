"""Compile the C++ kernels, at installation (setup.py) or on the spot (compiler.py), by the standard library alone."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

Definitions = tuple[str, ...]  # macros, as "SINE" or "DEPTH=2"

# Those that are compiled at installation, with their definitions. Others are compiled on the spot, in about a second.
BUILT: tuple[tuple[str, Definitions], ...] = (
    ("program.cpp", ()),
    ("gather.cpp", ()),
    *(
        ("chain.cpp", ("REAL=double", f"DEPTH={depth}", f"KIND={kind}"))
        for depth, kind in ((1, "CHAIN"), (2, "CHAIN"), (3, "CHAIN"), (2, "RING"), (2, "ALL"), (1, "NONE"))
    ),
)
# Not -ffast-math: NaN and infinity are answers. Without errno and traps, sqrt and rint become single instructions.
# Without contraction, a loop's rounding is as it is written: the same bits in every variant and on every processor.
FLAGS = (
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-fopenmp",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-Wno-psabi",
)
COMPILERS = ("c++", "g++", "clang++")
TIMEOUT_S = 300
# Instruction sets of 64-bit x86 with fused multiply-add, and what the compiler calls them; other processors have one.
_X86 = {"v3": "-march=x86-64-v3", "v4": "-march=x86-64-v4"}
_V4 = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


@cache
def source(name: str) -> str:
    """Return the text of a C++ file of this folder, as "gather.cpp", with those of the folder that it includes."""
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    return re.sub(r'^#include "(\w+\.h)"$', lambda included: source(included[1]), text, flags=re.MULTILINE)


def digest(text: str, definitions: Definitions) -> str:
    """Return the name of a source's content and its definitions, which a built library carries."""
    return hashlib.sha256(" ".join((*FLAGS, *definitions, text)).encode()).hexdigest()[:16]


def built_file(name: str, definitions: Definitions, level: str) -> Path:
    """Return where the library of a source lies that was built with definitions for an instruction set."""
    words = [Path(name).stem, *(definition.rpartition("=")[2].lower() for definition in definitions), level]
    return Path(__file__).with_name(f"_{'_'.join(words)}.so")


def levels() -> dict[str, tuple[str, ...]]:
    """Return the instruction sets that this kind of processor may have, the least first, with the compiler's flags."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        return {level: (flag,) for level, flag in _X86.items()}
    return {"generic": ()}


def level_here() -> str:
    """Return the largest of `levels` that Linux says this machine has; the least where it says nothing."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        words = set()
    names = list(levels())
    return names[-1] if words >= _V4 else names[0]


def compile_source(text: str, definitions: Definitions, binary: Path, flags: tuple[str, ...]) -> None:
    """Compile a source to a shared library.

    Args:
        text: the C++ source (see `source`).
        definitions: macros.
        binary: the file to write; its folder is there.
        flags: beside `FLAGS`.

    Raises:
        OSError: no compiler, or a file cannot be written.
        subprocess.SubprocessError: the compiler failed, or took longer than five minutes.
    """
    file = binary.with_suffix(".cpp")
    carried = f'extern "C" const char source_digest[] = "{digest(text, definitions)}";'
    file.write_text(f"{text}\n{carried}\n", encoding="utf-8")
    macros = [f"-D{definition}" for definition in definitions]
    command = [*_compiler(), *FLAGS, *flags, *macros, str(file), "-o", str(binary)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)  # nosec B603 # own source


def _compiler() -> list[str]:
    """Return the compiler's command, from $CXX or the path; FileNotFoundError where there is none."""
    if named := shlex.split(os.environ.get("CXX", "")):
        return named
    path = next((path for name in COMPILERS if (path := shutil.which(name))), None)
    if path is None:
        raise FileNotFoundError(f"none of {', '.join(COMPILERS)} is on the path")
    return [path]

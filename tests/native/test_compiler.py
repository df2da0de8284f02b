"""C++ sources: part of the package, compiled once, done without where they cannot be."""

import tomllib

from support.optimizers import NEEDS_COMPILER
from support.places import ROOT

from qsgd_ray.native import compiler


def test_every_cpp_file_and_header_is_package_data():
    package = ROOT / "qsgd_ray"
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["qsgd_ray"]
    files = {*package.rglob("*.cpp"), *package.rglob("*.h")}
    assert len(files) >= 8
    assert files <= {file for pattern in patterns for file in package.glob(pattern)}


@NEEDS_COMPILER
def test_what_the_compiler_says_is_told(monkeypatch, caplog):
    monkeypatch.setattr(compiler, "_libraries", {})
    assert compiler._library("nonsense") is None
    assert "error" in caplog.text


@NEEDS_COMPILER
def test_a_source_is_compiled_once_for_each_set_of_definitions(monkeypatch):
    monkeypatch.setattr(compiler, "_libraries", {})
    first, other = (compiler.kernel("gather.cpp", *macros) for macros in ((), ("OTHER",)))
    assert first is not other
    assert compiler.kernel("gather.cpp") is first


def test_a_source_has_the_headers_of_its_folder_in_it():
    text = compiler.source("chain.cpp")
    assert '#include "' not in text
    assert compiler.source("chain_lanes.h") in text
    assert "#include <cmath>" in text

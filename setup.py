"""Build the C++ kernels into the package; pyproject.toml says all else. Without a compiler it is built without them."""

import importlib.util
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("build", HERE / "qsgd_ray" / "native" / "_build.py")
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)


class BuildKernels(build_ext):
    """Compile each kernel for each instruction set; an editable installation has that of this machine."""

    def initialize_options(self):
        super().initialize_options()
        self.parallel = True

    def get_ext_filename(self, ext_name):
        return f"{ext_name.replace('.', '/')}.so"  # loaded by ctypes, whichever Python

    def build_extension(self, ext):
        (name,), definitions, level = ext.sources, ext.definitions, ext.level
        if (self.inplace or self.editable_mode) and level != build.level_here():
            raise CompileError(f"{name}: not for this machine")
        binary = Path(self.get_ext_fullpath(ext.name)).resolve()
        binary.parent.mkdir(parents=True, exist_ok=True)
        try:
            build.compile_source(build.source(name), definitions, binary, build.levels()[level])
        except (OSError, subprocess.SubprocessError) as error:
            raise CompileError(f"{name}: {getattr(error, 'stderr', None) or error}") from error
        finally:
            binary.with_suffix(".cpp").unlink(missing_ok=True)

    def get_source_files(self):
        return []  # package data has them


class Wheel(bdist_wheel):
    """A wheel for any Python 3 on this platform."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


kernels = []
for name, definitions in build.BUILT:
    for level in build.levels():
        module = build.built_file(name, definitions, level).stem
        kernels.append(Extension(f"qsgd_ray.native.{module}", [name], optional=True))
        kernels[-1].definitions, kernels[-1].level = definitions, level
setup(ext_modules=kernels, cmdclass={"build_ext": BuildKernels, "bdist_wheel": Wheel})

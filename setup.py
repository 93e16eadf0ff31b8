"""Builds edgekit._C. Everything else about the package is in pyproject.toml."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).resolve().parent / "csrc"))  # a build has no folder of ours there
from build_flags import COMMON_FLAGS, CSRC, CXX_STANDARD, ISA_FLAGS, isa_of, sources_for

HERE = CSRC.parent


class BuildExt(build_ext):
    """Compiles each source with the flags of its instruction set."""

    def build_extensions(self) -> None:
        """Adds the flags of a source's instruction set to its command line, then builds as usual."""
        compile_one = self.compiler._compile

        def with_isa(obj, src, ext, cc_args, extra_postargs, pp_opts):
            flags = ISA_FLAGS.get(isa_of(src) or "", [])
            compile_one(obj, src, ext, cc_args, [*extra_postargs, *flags], pp_opts)

        self.compiler._compile = with_isa
        super().build_extensions()


class BuildPy(build_py):
    """Puts the folder ``targets/`` into the package, where an installed edgekit looks for it."""

    def run(self) -> None:
        """Builds as usual, then copies; an editable install reads the checkout's own folder."""
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib, "edgekit", "_targets")
            self.mkpath(str(folder))
            for path in sorted((HERE / "targets").glob("*.toml")):
                self.copy_file(str(path), str(folder / path.name))


extension = Pybind11Extension(
    "edgekit._C",
    [str(path.relative_to(HERE)) for path in sources_for(sysconfig.get_platform().rpartition("-")[2])],
    include_dirs=["csrc"],
    depends=sorted(str(path.relative_to(HERE)) for path in (HERE / "csrc").rglob("*.h")),
    extra_compile_args=COMMON_FLAGS,
    extra_link_args=["-pthread"],
    cxx_std=CXX_STANDARD,
)

setup(ext_modules=[extension], cmdclass={"build_ext": BuildExt, "build_py": BuildPy})

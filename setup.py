"""Builds edgekit._C. Everything else about the package is in pyproject.toml."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent

# No contraction and no reassociation: every instruction set and machine gives the same bits.
COMMON_FLAGS = [
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
]
# A source named <operator>_<instruction set>.cpp is compiled for it; those of another machine are left out.
AVX2_FLAGS = ["-mavx2", "-mfma", "-mf16c"]
ISA_FLAGS = {
    "avx2": AVX2_FLAGS,
    # GCC 12 warns inside its own AVX-512 header.
    "avx512": [
        *AVX2_FLAGS,
        *(f"-mavx512{part}" for part in ("f", "vl", "bw", "dq")),
        "-Wno-maybe-uninitialized",
    ],
}
IS_X86 = sysconfig.get_platform().endswith(("x86_64", "amd64"))


def isa_of(source: str) -> str | None:
    """The instruction set a source is for, by its name; None if it runs anywhere."""
    suffix = Path(source).stem.rpartition("_")[2]
    return suffix if suffix in ISA_FLAGS else None


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


sources = sorted(str(path.relative_to(HERE)) for path in (HERE / "csrc").rglob("*.cpp"))
extension = Pybind11Extension(
    "edgekit._C",
    [source for source in sources if IS_X86 or isa_of(source) is None],
    include_dirs=["csrc"],
    depends=sorted(str(path.relative_to(HERE)) for path in (HERE / "csrc").rglob("*.h")),
    extra_compile_args=COMMON_FLAGS,
    extra_link_args=["-pthread"],
    cxx_std=17,
)

setup(ext_modules=[extension], cmdclass={"build_ext": BuildExt, "build_py": BuildPy})

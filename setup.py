"""Builds edgekit._C. Everything else about the package is in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).resolve().parent / "csrc"))  # a build has no folder of ours there
from build_flags import (
    COMMON_FLAGS,
    CSRC,
    CUDA_FLAGS,
    CXX_STANDARD,
    ISA_FLAGS,
    cuda_code,
    cuda_libraries,
    cuda_sources,
    isa_of,
    nvcc,
    sources_for,
    wants_cuda,
)

HERE = CSRC.parent


class BuildExt(build_ext):
    """Compiles each source with the flags of its instruction set, and those of CUDA where they are wanted."""

    def build_extensions(self) -> None:
        """Adds the flags of a source's instruction set to its command line, then builds as usual."""
        if wants_cuda():
            self._add_cuda(self.extensions[0])
        compile_one = self.compiler._compile

        def with_isa(obj, src, ext, cc_args, extra_postargs, pp_opts):
            flags = ISA_FLAGS.get(isa_of(src) or "", [])
            compile_one(obj, src, ext, cc_args, [*extra_postargs, *flags], pp_opts)

        self.compiler._compile = with_isa
        super().build_extensions()

    def _add_cuda(self, extension: Pybind11Extension) -> None:
        compiler = nvcc()
        folder = Path(self.build_temp, "cuda")
        folder.mkdir(parents=True, exist_ok=True)

        def compile_one(source: Path) -> str:
            result = str(folder / f"{source.stem}.o")
            flags = [*CUDA_FLAGS, *cuda_code(compiler), f"-I{CSRC}"]
            subprocess.run([compiler, *flags, "-c", str(source), "-o", result], check=True)
            return result

        with ThreadPoolExecutor(self.parallel or 2) as workers:
            extension.extra_objects.extend(workers.map(compile_one, cuda_sources()))
        extension.define_macros.append(("EK_CUDA", "1"))
        # The static runtime needs no CUDA where there is no GPU: it looks for the driver when it is called.
        extension.library_dirs.append(str(cuda_libraries(compiler)))
        extension.libraries.extend(["cudart_static", "dl", "rt", "pthread"])


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
    depends=sorted(str(path.relative_to(HERE)) for kind in ("*.h", "*.cu") for path in CSRC.rglob(kind)),
    extra_compile_args=COMMON_FLAGS,
    extra_link_args=["-pthread"],
    cxx_std=CXX_STANDARD,
)

setup(ext_modules=[extension], cmdclass={"build_ext": BuildExt, "build_py": BuildPy})

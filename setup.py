"""Builds edgekit._C, and of the same objects what the libraries for other runtimes are linked with.

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).resolve().parent))  # a build has no folder of ours there
from edgekit.hosts import build
from edgekit.hosts.flags import (
    COMMON_FLAGS,
    CSRC,
    CUDA_FLAGS,
    CXX_STANDARD,
    ISA_FLAGS,
    cuda_code,
    cuda_libraries,
    cuda_sources,
    isa_of,
    kernel_sources,
    nvcc,
    sources_for,
    wants_cuda,
)

HERE = CSRC.parent
MACHINE = sysconfig.get_platform().rpartition("-")[2]


class BuildExt(build_ext):
    """Compiles each source with the flags of its instruction set, and those of CUDA where they are wanted."""

    def run(self) -> None:
        """Remembers where results go, which building forgets."""
        self.home = HERE if self.inplace else Path(self.build_lib)
        super().run()

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
        if sys.platform == "linux":
            self._build_libraries()

    def _build_libraries(self) -> None:
        """The kernels' objects as an archive, and the library for ONNX Runtime, which needs no headers."""
        folder = self.home / "edgekit" / build.INSTALLED.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / build.DIGEST).unlink(missing_ok=True)
        sources = [str(p.relative_to(HERE)) for p in kernel_sources(MACHINE)]
        objects = self.compiler.object_filenames(sources, output_dir=self.build_temp)
        archive = folder / build.ARCHIVE
        archive.unlink(missing_ok=True)
        self.compiler.create_static_lib(objects, archive.stem.removeprefix("lib"), output_dir=str(folder))
        here = build.Platform.here()
        adapter = Path(self.build_temp, "onnxruntime.o")
        build.compile_adapter(build.ONNXRUNTIME, adapter, here)
        build.link([adapter, archive], folder / build.ONNXRUNTIME.file, here, build.ONNXRUNTIME.links)
        (folder / build.DIGEST).write_text(build.installed_digest())

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
    """Puts the folders ``targets/`` and ``csrc/`` into the package, where an installed edgekit looks."""

    def run(self) -> None:
        """Builds as usual, then copies; an editable install reads the checkout's own folders."""
        super().run()
        if self.editable_mode:
            return
        copies = {"_targets": sorted((HERE / "targets").glob("*.toml"))}
        copies["_csrc"] = sorted(p for p in CSRC.rglob("*") if p.suffix in (".h", ".cpp", ".cu"))
        for name, paths in copies.items():
            base = HERE / name.removeprefix("_")
            for path in paths:
                place = Path(self.build_lib, "edgekit", name, path.relative_to(base))
                self.mkpath(str(place.parent))
                self.copy_file(str(path), str(place))


extension = Pybind11Extension(
    "edgekit._C",
    [str(path.relative_to(HERE)) for path in sources_for(MACHINE)],
    include_dirs=["csrc"],
    depends=sorted(str(path.relative_to(HERE)) for kind in ("*.h", "*.cu") for path in CSRC.rglob(kind)),
    extra_compile_args=COMMON_FLAGS,
    extra_link_args=["-pthread"],
    cxx_std=CXX_STANDARD,
)

setup(ext_modules=[extension], cmdclass={"build_ext": BuildExt, "build_py": BuildPy})

"""The shape of the house: what may import what. Nothing here runs the code, it is all read."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgekit

ROOT = Path(edgekit.__file__).parent
CSRC = ROOT.parent / "csrc"

# From the ground up. A module or folder imports from earlier lines only, never sideways; the files of one
# folder may import each other. A new module that is not here fails the test.
LAYERS = (
    ("_version", "errors"),
    ("registry", "spec", "jetpack"),
    ("schema", "atomic", "machine", "archive", "jetson"),
    ("isolation", "reports", "samples", "target", "cuts", "recovery"),
    ("kernels", "volumes", "hosts", "golden"),
    ("graph", "metrics", "dataset"),
    ("steps", "torch", "passes", "backends", "cases"),
    ("manifest", "compare", "gates", "zoo"),
    ("bundle", "engines"),
    ("runtime", "doctor", "deploy"),
    ("profiling", "probe", "report", "proof", "finalization"),
    ("calibration",),
    ("contest", "front", "mixed"),
    ("compression", "slimming"),
    ("pipeline", "distillation"),
    ("demo", "diff", "check"),
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# Packages that only these may import, at any place in the file.
OWNERS = {
    "torch": ("torch/", "zoo/"),
    "safetensors": ("torch/", "zoo/", "graph/weights.py"),
    "torch_pruning": ("torch/prune/scores.py",),
    "onnx": ("graph/", "passes/", "backends/", "torch/export.py"),
    "onnx_ir": ("graph/", "passes/", "backends/", "torch/export.py"),
    "onnxscript": ("graph/", "passes/", "backends/", "torch/export.py", "torch/translations.py"),
    "onnxruntime": ("backends/onnxruntime.py",),
    "openvino": ("backends/openvino",),
    "tvm": ("backends/tvm/",),
    "tensorrt": ("backends/tensorrt/",),
    "tvm_ffi": ("backends/tvm/backend.py",),
    "elftools": ("hosts/elf.py",),
    "pydicom": ("volumes/", "demo.py"),
    "nibabel": ("volumes/",),
    "nilearn": ("demo.py",),
    "skimage": ("demo.py", "metrics/"),
    "PIL": ("volumes/", "demo.py"),
    "scipy": ("demo.py", "metrics/"),
    "numba": ("kernels/numba/",),
    "click": ("cli/",),
    "rich": ("cli/",),
    "pybind11": ("deploy/payload.py",),
}
# Of those, the ones that may be imported when their owner is: everything there needs them.
AT_THE_TOP = {"torch", "safetensors", "click", "numba"}
# Loaded by a backend when it compiles or opens, and by nobody else.
EAGER = {f"backends/tvm/{file}.py" for file in ("__init__", "backend", "importer")}

SOURCES = sorted(ROOT.rglob("*.py"))
LAZY_FILES = {ROOT / "backends/reference_ops.py"} | set((ROOT / "backends/tvm").rglob("*.py")) - {
    ROOT / file for file in EAGER
}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def unit(path: Path) -> str:
    """The entry of the table that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module with its line, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            module = node.module or ""
            if module == "edgekit":
                yield from ((f"edgekit.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


def at_the_top(tree: ast.Module) -> Iterator[str]:
    """Modules imported when the file is."""
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (module for module, _ in imports(ast.Module([node], [])))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_point_down(path: Path) -> None:
    here = unit(path)
    if path == ROOT / "__init__.py":
        return  # the public names, all of them lazy
    assert here in LEVEL, f"give {here} a place in LAYERS"
    for module, line in imports(ast.parse(path.read_text())):
        parts = module.split(".")
        if parts[0] != "edgekit" or len(parts) == 1 or parts[1] in ("_C", here):
            continue
        assert LEVEL[parts[1]] < LEVEL[here], f"{name(path)}:{line} imports {module}, which is not below it"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_packages_stay_with_their_owners(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for block in (n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"):
        block.body = [ast.Pass()]  # never run
    for module, line in imports(tree):
        package = module.split(".")[0]
        if package in OWNERS:
            allowed = any(name(path).startswith(owner) for owner in OWNERS[package])
            assert allowed, f"{name(path)}:{line} imports {package}"
    if path in LAZY_FILES:
        return
    heavy = {module.split(".")[0] for module in at_the_top(tree)} & OWNERS.keys() - AT_THE_TOP
    assert not heavy, f"{name(path)} imports {', '.join(heavy)} when it is imported"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_that_runs_what_it_reads(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{name(path)} does not say what it is"
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert not called & {"eval", "exec", "__import__"}
    assert not re.search(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError", path.read_text()), "finish it"
    assert not {m for m, _ in imports(tree)} & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
    keywords = [k for n in ast.walk(tree) if isinstance(n, ast.Call) for k in n.keywords]
    for keyword, forbidden in (("weights_only", False), ("shell", True), ("allow_pickle", True)):
        values = [k.value for k in keywords if k.arg == keyword]
        assert not any(isinstance(v, ast.Constant) and v.value is forbidden for v in values)


@pytest.mark.parametrize("path", sorted(CSRC.rglob("*.[ch]*")), ids=lambda p: str(p.relative_to(CSRC)))
def test_python_stays_in_bind(path: Path) -> None:
    text = path.read_text()
    assert path.parent.name == "bind" or not re.search(r"pybind11|Python\.h", text)
    # Memory and the environment are the caller's business.
    assert path.parent.name in ("bind", "hosts", "runtime") or "getenv" not in text


def test_the_table_names_nothing_that_is_gone() -> None:
    assert LEVEL.keys() == {unit(path) for path in SOURCES} - {"__init__"}


def test_every_public_name_resolves() -> None:
    for public in edgekit.__all__:
        assert getattr(edgekit, public) is not None


@pytest.mark.parametrize("module", ["edgekit", "edgekit.runtime", "edgekit.kernels", "edgekit.profiling"])
def test_the_device_side_is_small(module: str) -> None:
    """In a fresh process: running a bundle loads neither the model's framework nor the model's format."""
    script = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    packages = {entry.split(".")[0] for entry in loaded.stdout.split()}
    assert not packages & (OWNERS.keys() - {"pybind11"})


def test_test_files_have_names_of_their_own() -> None:
    """Pytest imports a test file by its base name: two of the same name end a run of the whole suite."""
    files = sorted((ROOT.parent / "tests").rglob("*.py"))
    names = [path.stem for path in files if path.stem not in ("conftest", "__init__")]
    assert not sorted(stem for stem in set(names) if names.count(stem) > 1)

"""The library for OpenVINO: what it is built with, and which release it fits.

OpenVINO's C++ interface is that of one release, whose number is in the name of its library. The wheel brings
headers and libraries, so the library is built of the release that is installed.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from edgekit.errors import UnavailableError
from edgekit.hosts.build import Adapter

# libopenvino.so.2641 is of release 2026.4.1.
_RUNTIME = re.compile(r"libopenvino\.so\.(\d\d)(\d)(\d)")


def adapter(package: Path | None = None) -> Adapter:
    """What the library is built with.

    Args:
        package: Folder of the package ``openvino``, for another machine than this one; the installed one by
            default.

    Raises:
        UnavailableError: It is not there, or not as a wheel has it.
    """
    package = package or _installed()
    libraries = package / "libs"
    runtime = next((p.name for p in sorted(libraries.glob("libopenvino.so.*")) if release(p.name)), None)
    headers = package / "include"
    if not runtime or not (headers / "openvino").is_dir():
        raise UnavailableError(
            "OpenVINO's headers and libraries: want them in its package, as its wheel has them",
            where=str(package),
            hint="pip install --force-reinstall openvino",
        )
    links = (f"-L{libraries}", f"-l:{runtime}", "-l:libtbb.so.12", f"-Wl,-rpath-link,{libraries}")
    return Adapter("openvino", runtime, (headers,), links=links, gnu=True)


def release(text: str) -> str:
    """The release, such as ``"2026.4.1"``, whose library a text names; empty where it names none."""
    found = _RUNTIME.search(text)
    return f"20{found[1]}.{found[2]}.{found[3]}" if found else ""


def _installed() -> Path:
    spec = importlib.util.find_spec("openvino")
    if spec is None or not spec.submodule_search_locations:
        raise UnavailableError("package 'openvino' is not installed", hint="pip install 'edgekit[openvino]'")
    return Path(next(iter(spec.submodule_search_locations)))

"""What a network that TVM compiled is linked with, so that it holds edgekit's operators itself."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path

from edgekit.errors import UnavailableError
from edgekit.hosts import build

_HEADER = "tvm/ffi/c_api.h"


def adapter() -> build.Adapter:
    """The functions that TVM calls, over the headers of the installed tvm_ffi.

    They use its C interface alone, which its releases keep; the headers are those of any architecture.
    ``tvm_ffi.load_module`` loads them too, as the library that :func:`edgekit.hosts.build.library` makes: a
    function ``edgekit_<operator>`` takes the inputs, the attributes in the operator's order, and the output.

    Raises:
        UnavailableError: tvm_ffi is not installed, or without its headers.
    """
    package = importlib.util.find_spec("tvm_ffi")
    folders = [Path(place, "include") for place in (package and package.submodule_search_locations) or ()]
    includes = tuple(folder for folder in folders if (folder / _HEADER).is_file())
    if not includes:
        raise UnavailableError(
            f"edgekit's operators are compiled with TVM's headers: want tvm_ffi with {_HEADER}, got none",
            hint="pip install 'edgekit[tvm]'",
        )
    # New headers may lie where the old ones did: the version tells what was compiled with which.
    return build.Adapter("tvm", importlib.metadata.version("apache-tvm-ffi"), includes)


def addons(wanted: build.Platform) -> list[str]:
    """The files to link a network with, in this order: the functions, and the archive of the kernels.

    Args:
        wanted: What the network runs on.

    Raises:
        UnavailableError, CompileError: As :func:`edgekit.hosts.build.library`, and as :func:`adapter`.
    """
    return [str(build.adapter_object(adapter(), wanted)), str(build.kernel_objects(wanted))]

"""Apache TVM: the network becomes machine code of its own, in one shared library.

``backend`` is what edgekit sees of it, ``compiler`` the way from ONNX to the library, ``importer`` how the
operators of edgekit get in. Only ``backend`` is imported before a network is compiled.
"""

from edgekit.backends.tvm.backend import BACKEND

__all__ = ["BACKEND"]

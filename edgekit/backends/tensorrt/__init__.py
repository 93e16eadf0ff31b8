"""NVIDIA TensorRT: the portable form of a network here, its engine on the device.

``backend`` is what edgekit sees of it; ``plan`` says how an engine is built, ``portable`` writes the network,
``programs`` the plan as programs, ``builder`` and ``session`` speak to TensorRT on the device.
"""

from edgekit.backends.tensorrt.backend import BACKEND

__all__ = ["BACKEND"]

"""Everything that works on torch modules: our operators for torch, and the way from a module to ONNX.

Operators with gradients are in :mod:`edgekit.torch.operators`, filters in :mod:`edgekit.torch.denoising`,
layers in :mod:`edgekit.torch.modules`; :mod:`edgekit.torch.prune` makes networks smaller and
:mod:`edgekit.torch.distil` better again.
"""

from edgekit.torch.translations import legacy_onnx_symbols, onnx_translations

__all__ = ["legacy_onnx_symbols", "onnx_translations"]

"""Everything that works on torch modules: our operators for torch, and the way from a module to ONNX."""

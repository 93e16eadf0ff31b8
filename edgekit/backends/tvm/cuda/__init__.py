"""Networks for NVIDIA's GPUs, compiled without one: channels last, half precision, tensor cores.

``compiler`` is the way from ONNX to a library, ``network`` rewrites the network into calls of kernels,
``gemm`` convolves, ``memory`` and ``normalization`` wait for memory, ``device`` makes machine code and packs
it. Not yet run on a device: tests run all of it on a processor that plays the GPU.
"""

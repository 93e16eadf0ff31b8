"""Kernels of a GPU written out: blocks, warps, shared memory, and the instructions that C has no words for.

A :class:`DeviceKernel` is a :class:`~edgekit.backends.tvm.loops.Kernel` whose loops are blocks and threads.
What TensorIR cannot say (tensor cores, copies that do not wait, 16-byte accesses) are functions of a few
lines each, :data:`INSTRUCTIONS`, called by name. In the tests a processor plays the GPU, and has each of them
in C++.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from tvm import tirx
from tvm.backend.cuda.op import cuda_func_call
from tvm.tirx.script import builder as script

from edgekit.backends.tvm.loops import Buffer, Expr, Index, Kernel, product
from edgekit.errors import CompileError

WARP = 32
# What an access to memory takes at most, and at best: LDG.128, STG.128, cp.async 16.
ACCESS_BYTES = 16

_MMA = """
__device__ __forceinline__ void {name}({number}* d, const unsigned* a, const unsigned* b) {{
  asm volatile(
      "mma.sync.aligned.{form} {{%0, %1, %2, %3}}, {{%4, %5, %6, %7}}, {{%8, %9}}, {{%0, %1, %2, %3}};"
      : "+{letter}"(d[0]), "+{letter}"(d[1]), "+{letter}"(d[2]), "+{letter}"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}}
"""

# All of them take 32 bytes of each row of A and of each column of B: that is why one kernel serves all types.
INSTRUCTIONS = {
    "ek_mma_float16": _MMA.format(
        name="ek_mma_float16", number="float", letter="f", form="m16n8k16.row.col.f32.f16.f16.f32"
    ),
    "ek_mma_int8": _MMA.format(
        name="ek_mma_int8", number="int", letter="r", form="m16n8k32.row.col.s32.s8.s8.s32"
    ),
    "ek_mma_tf32": _MMA.format(
        name="ek_mma_tf32", number="float", letter="f", form="m16n8k8.row.col.f32.tf32.tf32.f32"
    ),
    # A mantissa's upper 10 bits, and what they leave: products of both are float32's but for 2^-21.
    "ek_split": """
__device__ __forceinline__ void ek_split(unsigned* high, unsigned* low, const unsigned* all) {
  *high = *all & 0xffffe000u;
  *low = __float_as_uint(__uint_as_float(*all) - __uint_as_float(*high));
}
""",
    # Four matrices of 8 rows of 16 bytes; lane i gives the address of row i, and gets 4 bytes of each.
    "ek_load_matrices": """
__device__ __forceinline__ void ek_load_matrices(unsigned* to, const void* row) {
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at) : "memory");
}
""",
    # 16 bytes from global to shared memory, or 16 zeros, while the thread goes on.
    "ek_copy_async": """
__device__ __forceinline__ void ek_copy_async(void* to, const void* from, bool wanted) {
  const unsigned at = static_cast<unsigned>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :: "r"(at), "l"(from), "r"(wanted ? 16 : 0) : "memory");
}
""",
    "ek_close_group": """
__device__ __forceinline__ void ek_close_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
""",
    # Until at most so many groups of copies of this thread are under way.
    "ek_wait_groups_0": """
__device__ __forceinline__ void ek_wait_groups_0() { asm volatile("cp.async.wait_group 0;" ::: "memory"); }
""",
    "ek_wait_groups_1": """
__device__ __forceinline__ void ek_wait_groups_1() { asm volatile("cp.async.wait_group 1;" ::: "memory"); }
""",
    "ek_barrier": """
__device__ __forceinline__ void ek_barrier() { __syncthreads(); }
""",
    "ek_warp_barrier": """
__device__ __forceinline__ void ek_warp_barrier() { __syncwarp(); }
""",
    # 16 bytes at once; both addresses are multiples of 16.
    "ek_move_16": """
__device__ __forceinline__ void ek_move_16(void* to, const void* from) {
  *static_cast<uint4*>(to) = *static_cast<const uint4*>(from);
}
""",
    "ek_move_8": """
__device__ __forceinline__ void ek_move_8(void* to, const void* from) {
  *static_cast<uint2*>(to) = *static_cast<const uint2*>(from);
}
""",
    "ek_move_4": """
__device__ __forceinline__ void ek_move_4(void* to, const void* from) {
  *static_cast<unsigned*>(to) = *static_cast<const unsigned*>(from);
}
""",
}


class DeviceKernel(Kernel):
    """One function for a GPU, being written: a grid of blocks of threads."""

    def __enter__(self) -> DeviceKernel:
        super().__enter__()
        return self

    def let(self, value: Expr) -> Expr:
        """The value, computed here and once: a variable, for which the GPU's compiler finds a register."""
        return script.bind(value)

    def argument(self, name: str, shape: Sequence[int], dtype: str = "float32") -> Buffer:
        """The next argument.

        Raises:
            CompileError: It has more numbers than an index in 32 bits tells apart.
        """
        if product(shape) >= 1 << 31:
            raise CompileError(
                f"a tensor on a GPU: want fewer than 2^31 numbers, got the shape {tuple(shape)}",
                where="TVM",
                hint="compile for smaller images, as tiles of these",
            )
        return super().argument(name, shape, dtype)

    @contextlib.contextmanager
    def grid(self, blocks: Sequence[int], threads: int) -> Iterator[tuple[list[Expr], Expr]]:
        """What each thread does.

        Yields:
            The block's indices, one for each number of blocks (at most three), and the thread's.
        """
        with contextlib.ExitStack() as stack:
            # Relax looks for reshapes among the kernels, and takes for granted that each is such a block.
            stack.enter_context(script.sblock("root"))
            names = ("blockIdx.x", "blockIdx.y", "blockIdx.z")
            indices = [
                stack.enter_context(script.launch_thread(name, number))
                for name, number in zip(names, blocks, strict=False)
            ]
            yield indices, stack.enter_context(script.launch_thread("threadIdx.x", threads))

    @contextlib.contextmanager
    def unrolled(self, length: int) -> Iterator[Any]:
        """A loop whose passes stand one behind the other, as registers must be named in them."""
        with script.unroll(length) as index:
            yield index

    def shared(self, size: int) -> Buffer:
        """Bytes of the block's own memory, at a multiple of 64."""
        return self._whole(script.alloc_buffer((size,), "uint8", scope="shared.dyn"), size)

    def local(self, count: int, dtype: str = "float32") -> Buffer:
        """Registers of a thread, when all indices are constants."""
        return self._whole(script.alloc_buffer((count,), dtype, scope="local"), count)

    def _whole(self, buffer: Buffer, count: int) -> Buffer:
        """TVM cuts off a buffer's end that no index reaches, and knows not what is read from an address."""
        script.evaluate(self.address(buffer, count - 1))
        return buffer

    def address(self, buffer: Buffer, *indices: Index) -> Expr:
        """Where an element lies."""
        return tirx.address_of(tirx.BufferLoad(buffer, list(indices)))

    def call(self, name: str, *arguments: Expr) -> None:
        """One of :data:`INSTRUCTIONS`."""
        script.evaluate(cuda_func_call(name, *arguments, source_code=INSTRUCTIONS[name]))

"""What the rules need to know of a processor: how long its vectors are, how many, and what it multiplies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgekit.backends.tvm.tensor import Halo, Layout
from edgekit.backends.tvm.tuned import Tuned
from edgekit.target import Target

# Linux's names of instruction set extensions, and LLVM's, where they matter to generated code.
_LLVM_NAMES = {
    "avx512_vnni": "avx512vnni",
    "avx_vnni": "avxvnni",
    "asimdhp": "fullfp16",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
}
_L2_BYTES = 512 << 10
# LLVM writes short loops out, and begins with the loads of all their turns, for which it has no registers:
# the kernels' loops are as long as they should be.
_AS_WRITTEN = "-unroll-threshold-aggressive:uint=0"


@dataclass(frozen=True)
class Processor:
    """One kind of core.

    Attributes:
        arch: ``"x86_64"`` or ``"aarch64"``.
        lanes: Numbers of 32 bits in a vector register.
        registers: Vector registers.
        dot: The instruction that multiplies and adds four pairs of bytes: ``"vnni"``, ``"dotprod"`` or none.
        l2_bytes: Second-level cache of one core.
        mcpu: LLVM's name of the least processor that has all this.
        mattr: More extensions, in LLVM's spelling.
        tuned: What was measured of it; ``None`` leaves all to the rules.
    """

    arch: str
    lanes: int
    registers: int
    dot: str = ""
    l2_bytes: int = _L2_BYTES
    mcpu: str = ""
    mattr: tuple[str, ...] = ()
    tuned: Tuned | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """One for all processors that are compiled for alike."""
        return "".join([self.mcpu or self.arch, *sorted(self.mattr)])

    @classmethod
    def of(cls, target: Target) -> Processor:
        """The processor that a target promises."""
        processor = cls._with(target.arch, target.cpu_features)
        cpu = target.cpu
        if cpu is None or cpu.l2_bytes is None:
            return processor
        return replace(processor, l2_bytes=cpu.l2_bytes // cpu.cores)

    @classmethod
    def least(cls, arch: str) -> Processor:
        """What every processor of an architecture has."""
        return cls._with(arch, ())

    @classmethod
    def _with(cls, arch: str, extensions: Sequence[str]) -> Processor:
        features = set(extensions)
        mattr = tuple(f"+{_LLVM_NAMES[name]}" for name in extensions if name in _LLVM_NAMES)
        if arch == "aarch64":
            dot = "dotprod" if "asimddp" in features else ""
            return cls("aarch64", 4, 32, dot, mcpu="cortex-a76" if dot else "generic", mattr=mattr)
        if "avx512f" in features:
            dot = "vnni" if "avx512_vnni" in features else ""
            return cls("x86_64", 16, 32, dot, mcpu="x86-64-v4", mattr=mattr)
        if {"avx2", "fma"} <= features:
            dot = "vnni" if "avx_vnni" in features else ""
            return cls("x86_64", 8, 16, dot, mcpu="x86-64-v3", mattr=mattr)
        return cls("x86_64", 4, 16, mcpu="x86-64", mattr=mattr)

    def llvm(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """TVM's description of the target; options of the user's that are not empty take precedence."""
        description: dict[str, Any] = {"kind": "llvm", "mcpu": self.mcpu}
        if self.mattr:
            description["mattr"] = list(self.mattr)
        if self.arch == "aarch64":
            description["cl-opt"] = [_AS_WRITTEN]
        description.update({name: value for name, value in options.items() if value})
        return description

    @property
    def elements(self) -> int:
        """Numbers of a register that it multiplies a vector with, one by one: 1 where it has to repeat them.

        NEON's ``fmla v0.4s, v1.4s, v2.s[3]`` takes the number from any lane.
        """
        return self.lanes if self.arch == "aarch64" else 1

    @property
    def block(self) -> int:
        """Most channels that lie side by side in memory: two registers where they are short."""
        return max(self.lanes, 8)

    def layout_for(self, channels: int, halo: Halo = (), fill: int = 0) -> Layout:
        """How a value of so many channels lies in memory, with zeros around it if so wanted.

        Args:
            channels: Of the value.
            halo: Zeros before and after each spatial axis.
            fill: The number that stands for zero.
        """
        block = self.block_for(channels)
        return Layout(block, halo, fill) if any(map(any, halo)) else Layout(block)

    def block_for(self, channels: int) -> int:
        """How many channels of so many lie side by side, so that at most a quarter of the memory is wasted.

        1 for few channels: their images lie one after the other.
        """
        if channels < 4:
            return 1
        for block in (16, 8, 4):
            if block <= self.block and -channels % block * 4 <= channels:
                return block
        return 4

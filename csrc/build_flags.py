"""Which C++ sources a machine compiles, and with which flags: for setup.py and for the native tests."""

from __future__ import annotations

from pathlib import Path

CSRC = Path(__file__).resolve().parent

CXX_STANDARD = 17
# No contraction and no reassociation: every instruction set and machine gives the same bits.
COMMON_FLAGS = [
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
]
# A source named <operator>_<instruction set>.cpp is compiled for it; those of another machine are left out.
AVX2_FLAGS = ["-mavx2", "-mfma", "-mf16c"]
ISA_FLAGS = {
    "avx2": AVX2_FLAGS,
    # GCC 12 warns inside its own AVX-512 header.
    "avx512": [
        *AVX2_FLAGS,
        *(f"-mavx512{part}" for part in ("f", "vl", "bw", "dq")),
        "-Wno-maybe-uninitialized",
    ],
    "neon": [],  # part of every AArch64 processor
}
# The instruction sets of a machine beside the scalar one, by the names systems give it.
X86, ARM = ("avx2", "avx512"), ("neon",)
MACHINE_ISAS = {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}


def isa_of(source: str | Path) -> str | None:
    """The instruction set a source is for, by its name; None if it runs anywhere."""
    suffix = Path(source).stem.rpartition("_")[2]
    return suffix if suffix in ISA_FLAGS else None


def sources_for(machine: str, folder: Path = CSRC) -> list[Path]:
    """The C++ sources of a folder that a machine compiles: all but those of other instruction sets."""
    isas = (None, *MACHINE_ISAS.get(machine, ()))
    return sorted(path for path in folder.rglob("*.cpp") if isa_of(path) in isas)

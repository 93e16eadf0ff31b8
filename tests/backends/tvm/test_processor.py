"""What targets promise to the rules."""

from __future__ import annotations

import pytest

from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Layout
from edgekit.target import find, known

AVX2 = Processor.of(find("x86-avx2"))
AVX512 = Processor.of(find("x86-avx512"))
ORIN = Processor.of(find("jetson-orin-nano-8gb"))


def test_vectors_and_registers() -> None:
    assert (AVX2.lanes, AVX2.registers, AVX2.dot) == (8, 16, "")
    assert (AVX512.lanes, AVX512.registers, AVX512.dot) == (16, 32, "vnni")
    assert (ORIN.lanes, ORIN.registers, ORIN.dot) == (4, 32, "dotprod")
    assert Processor.of(find("intel-n100")).dot == "vnni"
    least = Processor.least("x86_64")
    assert (least.lanes, least.dot, least.mcpu) == (4, "", "x86-64")


def test_every_target_has_one() -> None:
    for target in known().values():
        processor = Processor.of(target)
        assert processor.arch == target.arch and processor.lanes * 4 in (16, 32, 64)
        assert 128 << 10 <= processor.l2_bytes <= 4 << 20, target.name


def test_llvm_is_told_and_may_be_told_otherwise() -> None:
    said = AVX512.llvm({"mcpu": "", "mtriple": ""})
    assert said == {"kind": "llvm", "mcpu": "x86-64-v4", "mattr": ["+avx512vnni"]}
    assert AVX512.llvm({"mcpu": "znver4"})["mcpu"] == "znver4"


@pytest.mark.parametrize(
    ("channels", "avx2", "avx512"),
    [
        (1, 1, 1),
        (3, 1, 1),
        (4, 4, 4),
        (8, 8, 8),
        (12, 4, 4),
        (20, 8, 8),
        (24, 8, 8),
        (32, 8, 16),
        (40, 8, 16),
    ],
)
def test_blocks_waste_little(channels: int, avx2: int, avx512: int) -> None:
    assert (AVX2.block_for(channels), AVX512.block_for(channels)) == (avx2, avx512)


def test_a_halo_of_nothing_is_none() -> None:
    assert AVX2.layout_for(32, ((0, 0), (0, 0))) == Layout(8)
    assert AVX2.layout_for(32, ((0, 0), (0, 1))) == Layout(8, ((0, 0), (0, 1)))

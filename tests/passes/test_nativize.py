"""Warps, compositions and integrations are found however they are written, and nothing else is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import pytest
import torch
from monai.networks import nets
from monai.networks.blocks import DVF2DDF, Warp
from nativized import CPU, INTEGRATE, SAMPLE, WARP, assert_equal, nativize, own
from registration import (
    AffineSampled,
    NormalisedAnySize,
    SpatialTransformer,
    Squared,
    TransMorph,
    VecInt,
    VoxelMorph,
    Warped,
)
from torch import Tensor, nn

from edgekit.graph.graph import Graph
from edgekit.graph.load import build_graph, check_file
from edgekit.passes import PASSES, default_passes
from edgekit.passes.base import run_all

SIZE = (4, 5, 6)
IMAGE, FLOW = (1, 1, *SIZE), (1, 3, *SIZE)
FLOW_LAST = (1, *SIZE, 3)


@dataclass(frozen=True)
class Case:
    """A module, the shapes of its inputs, and what is to become of it.

    Attributes:
        module: Makes it.
        shapes: Of its inputs.
        operators: Those of domain ``edgekit`` afterwards.
        others: How many operators are left beside them once simplified; ``None`` for those of a network or
            of a grid that stays, whose number says nothing.
        reason: Part of the note about what did not become a warp.
        atol: How far outputs may lie apart.
        dynamic: The shapes as ranges, where lengths vary.
        optimize: Whether the exporter simplifies.
    """

    module: Callable[[], nn.Module]
    shapes: tuple[tuple[int, ...], ...]
    operators: dict[str, int]
    others: int | None = 0
    reason: str = ""
    atol: float = 2e-5
    dynamic: dict[str, str] = field(default_factory=dict)
    optimize: bool = False


class MonaiPair(nn.Module):
    """A network of MONAI's, with the warp its tutorials put behind it."""

    def __init__(self, network: nn.Module, integrate: int = 0) -> None:
        super().__init__()
        self.network, self.warp = network, Warp()
        self.integrate = DVF2DDF(num_steps=integrate) if integrate else nn.Identity()

    def forward(self, moving: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        ddf = self.integrate(self.network(torch.cat([moving, fixed], dim=1)))
        return self.warp(moving, ddf), ddf


def regunet() -> nn.Module:
    net = nets.RegUNet(spatial_dims=3, in_channels=2, num_channel_initial=2, depth=1, out_channels=3)
    return MonaiPair(net, integrate=2)


def localnet() -> nn.Module:
    return MonaiPair(
        nets.LocalNet(
            spatial_dims=3,
            in_channels=2,
            num_channel_initial=2,
            extract_levels=(0, 1),
            out_channels=3,
            out_activation=None,
        )
    )


def globalnet() -> nn.Module:
    return MonaiPair(
        nets.GlobalNet(image_size=[8, 8, 8], spatial_dims=3, in_channels=2, num_channel_initial=2, depth=1)
    )


def monai_voxelmorph() -> nn.Module:
    backbone = nets.VoxelMorphUNet(
        spatial_dims=3, in_channels=2, unet_out_channels=4, channels=(4, 4, 4, 4), final_conv_channels=(4,)
    )
    return nets.VoxelMorph(backbone=backbone, integration_steps=3, half_res=True)


ANY = "1x{}x[4:12:2]x[5:11:3]x[4:9]"
CASES = {
    "VoxelMorph's transformer": Case(lambda: SpatialTransformer(SIZE), (IMAGE, FLOW), WARP),
    "VoxelMorph's integration": Case(lambda: VecInt(SIZE, 4), (FLOW,), INTEGRATE),
    "VoxelMorph": Case(
        lambda: VoxelMorph((6, 8, 10)), ((1, 1, 6, 8, 10),) * 2, INTEGRATE | WARP, others=6, atol=1e-4
    ),
    "TransMorph": Case(
        TransMorph, (IMAGE, IMAGE, FLOW), WARP | SAMPLE, others=None, reason="halfway between two voxels"
    ),
    **{
        f"{padding}, corners {'aligned' if align else 'free'}": Case(
            lambda padding=padding, align=align: Warped(padding=padding, align=align), (IMAGE, FLOW), WARP
        )
        for padding in ("zeros", "border", "reflection")
        for align in (True, False)
    },
    "components x, y, z": Case(lambda: Warped(order="xyz"), (IMAGE, FLOW), WARP, others=1),
    "channels last": Case(lambda: Warped(last=True), (IMAGE, FLOW_LAST), WARP, others=1),
    "channels last, x, y, z": Case(
        lambda: Warped(last=True, order="xyz", align=False), (IMAGE, FLOW_LAST), WARP, others=2
    ),
    "units of the grid": Case(
        lambda: Warped(units="normalised", order="xyz", padding="border"), (IMAGE, FLOW), WARP, others=2
    ),
    "units of the grid, z, y, x": Case(
        lambda: Warped(units="normalised", align=False), (IMAGE, FLOW), WARP, others=1
    ),
    "batch of 2, 3 channels": Case(lambda: Warped(), ((2, 3, *SIZE), (2, 3, *SIZE)), WARP),
    "squared in x, y, z": Case(lambda: Squared(3, 0.125, Warped(order="xyz")), (FLOW,), INTEGRATE, others=2),
    "squared in units of the grid": Case(
        lambda: Squared(3, 0.125, Warped(order="xyz", units="normalised", padding="border")),
        (FLOW,),
        INTEGRATE,
        others=4,
    ),
    "squared after another scale": Case(lambda: Squared(2, 0.3, Warped()), (FLOW,), INTEGRATE, others=1),
    "squared once, halved": Case(lambda: Squared(1, 0.5, Warped()), (FLOW,), INTEGRATE),
    "squared once, scaled otherwise": Case(
        lambda: Squared(1, 0.25, Warped()), (FLOW,), {"Compose": 1}, others=1
    ),
    "normalised for other corners": Case(
        lambda: Warped(align=False, normalise_align=True),
        (IMAGE, FLOW),
        SAMPLE,
        others=None,
        reason="normalised for align_corners=1, and GridSample reads it with align_corners=0",
    ),
    "an affine grid": Case(
        AffineSampled, (IMAGE, (1, 3, 4)), SAMPLE, others=None, reason="comes from ReduceSum"
    ),
    "one voxel deep, divided by zero": Case(
        lambda: SpatialTransformer((1, 5, 6)),
        ((1, 1, 1, 5, 6), (1, 3, 1, 5, 6)),
        SAMPLE,
        others=None,
        reason="component z of the grid is not finite",
    ),
    "one voxel deep": Case(lambda: Warp(), ((1, 1, 1, 5, 6), (1, 3, 1, 5, 6)), WARP),
    "one voxel deep in zeros": Case(
        lambda: Warp(padding_mode="zeros"), ((1, 1, 1, 5, 6), (1, 3, 1, 5, 6)), WARP, others=1
    ),
    "MONAI's Warp": Case(lambda: Warp(), (IMAGE, FLOW), WARP),
    "MONAI's Warp, reflected": Case(lambda: Warp(padding_mode="reflection"), (IMAGE, FLOW), WARP),
    "MONAI's Warp, nearest": Case(
        lambda: Warp(mode="nearest"), (IMAGE, FLOW), SAMPLE, others=None, reason="halfway between two voxels"
    ),
    "MONAI's DVF2DDF": Case(lambda: DVF2DDF(num_steps=3), (FLOW,), INTEGRATE),
    "MONAI's Warp at any size": Case(
        lambda: Warp(), (IMAGE, FLOW), WARP, dynamic={"image": ANY.format(1), "ddf": ANY.format(3)}
    ),
    "MONAI's DVF2DDF at any size": Case(
        lambda: DVF2DDF(num_steps=2), (FLOW,), INTEGRATE, dynamic={"dvf": ANY.format(3)}
    ),
    "units of the grid at any size": Case(
        NormalisedAnySize,
        (IMAGE, FLOW),
        SAMPLE,
        others=None,
        reason="the scale of component z depends on the size",
        dynamic={"image": ANY.format(1), "flow": ANY.format(3)},
    ),
    "MONAI's VoxelMorph": Case(
        monai_voxelmorph, ((1, 1, 16, 16, 32),) * 2, INTEGRATE | WARP, others=None, atol=2e-4
    ),
    # Without the exporter's own simplification PyTorch writes biases of the wrong length here.
    "MONAI's RegUNet": Case(
        regunet, ((1, 1, 8, 8, 8),) * 2, INTEGRATE | WARP, others=None, atol=2e-4, optimize=True
    ),
    "MONAI's LocalNet": Case(localnet, ((1, 1, 8, 8, 8),) * 2, WARP, others=None, atol=2e-4, optimize=True),
    "MONAI's GlobalNet": Case(globalnet, ((1, 1, 8, 8, 8),) * 2, WARP, others=None, atol=2e-4, optimize=True),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Graph]]:
    """Graphs of the cases by name, each exported once."""
    folder, made = tmp_path_factory.mktemp("exported"), {}

    def export(name: str) -> Graph:
        if name not in made:
            path = folder / f"{len(made)}.onnx"
            _export(CASES[name], path)
            model = onnx.load(path)
            made[name] = build_graph(model, check_file(path, CASES[name].dynamic or None)[1], "test")
        return made[name]

    yield export


def _export(case: Case, path: Path) -> None:
    torch.manual_seed(0)
    arguments = tuple(torch.rand(shape) for shape in case.shapes)
    lengths = {axis: torch.export.Dim(name, min=4, max=64) for axis, name in ((2, "D"), (3, "H"), (4, "W"))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, and MONAI's about its extension
        program = torch.onnx.export(
            case.module().eval(),
            arguments,
            dynamo=True,
            opset_version=20,
            optimize=case.optimize,
            dynamic_shapes=(lengths,) * len(arguments) if case.dynamic else None,
            verbose=False,
        )
    assert program is not None
    program.save(path)


@pytest.mark.parametrize("simplified", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_exported_modules(name: str, simplified: bool, exported: Callable[[str], Graph]) -> None:
    case, graph = CASES[name], exported(name)
    if simplified:
        graph = PASSES["simplify"]().run(graph, CPU).graph
    result = nativize(graph)
    assert own(result.graph) == case.operators, result.notes
    assert not any(node.op_type == "GridSample" for node in result.graph.model.graph)
    assert any(case.reason in note for note in result.notes[1:]) == bool(case.reason), result.notes
    left = [node.op_type for node in result.graph.model.graph if node.domain != "edgekit"]
    if simplified and case.others is not None:
        assert len(left) == case.others, left
    if "GridSample3d" not in case.operators:
        assert not {"ScatterElements", "GatherND", "Range"} & set(left)
    assert (result.graph.inputs, result.graph.results) == (graph.inputs, graph.results)
    onnx.checker.check_model(onnx.load_from_string(result.graph.to_bytes()), full_check=True)
    assert_equal(graph, result.graph, case.atol)
    assert not nativize(result.graph).changed


def test_what_nothing_reads_any_more_goes(exported: Callable[[str], Graph]) -> None:
    graph = exported("VoxelMorph's transformer")
    assert "grid" in graph.model.graph.initializers
    result = nativize(graph)
    assert not result.graph.model.graph.initializers
    assert result.graph.model.opset_imports["edgekit"] == 1
    (node,) = result.graph.model.graph
    assert (node.name, node.outputs[0].name) == ("node_GridSample_25", "grid_sampler")
    assert result.notes == ("57 nodes became 1: Warp node_GridSample_25",)
    assert result.graph.history[-1] == f"nativize: {result.notes[0]}"


def test_a_registration_network_ends_at_its_velocity(exported: Callable[[str], Graph]) -> None:
    graph = exported("VoxelMorph's integration")
    result = run_all(default_passes(CPU), graph, CPU)
    assert "the model is nothing but operators of domain 'edgekit'" in result.notes[-1]
    result = run_all(default_passes(CPU), exported("MONAI's RegUNet"), CPU)
    assert [step.op for step in result.graph.after] == ["integrate_velocity", "warp"]

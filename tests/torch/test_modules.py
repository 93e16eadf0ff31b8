"""The drop-in modules against the originals: MONAI's own, VoxelMorph's by their published formula."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from monai.networks.blocks import warp as monai_warp
from torch import Tensor, nn

from edgekit import pipeline, runtime
from edgekit.errors import KernelError
from edgekit.torch.modules import DVF2DDF, SpatialTransformer, VecInt, Warp

PAGE = Path(__file__).parents[2] / "docs" / "torch.md"
SIZES = [(9, 11, 13), (12, 10)]


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def smooth(*shape: int, seed: int = 0, scale: float = 2.0) -> Tensor:
    coarse = random(*shape[:2], *(3 for _ in shape[2:]), seed=seed, scale=scale)
    mode = "trilinear" if len(shape) == 5 else "bilinear"
    return F.interpolate(coarse, size=shape[2:], mode=mode, align_corners=True)


def output_and_gradients(module: Callable[..., Tensor], tensors: list[Tensor]) -> list[Tensor]:
    """The output, and the gradients of a random projection of it."""
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    result = module(*tensors)
    projection = random(*result.shape, seed=9).to(result.dtype)
    gradients = torch.autograd.grad(result, tensors, projection, allow_unused=True)
    return [
        result.detach(),
        *(torch.zeros_like(t) if g is None else g for t, g in zip(tensors, gradients, strict=True)),
    ]


def assert_same(
    ours: Callable[..., Tensor], theirs: Callable[..., Tensor], *tensors: Tensor, atol: float = 1e-5
) -> None:
    """Same in float64; in float32 too, but for gradients where rounding carries theirs across a kink."""
    doubles = [tensor.double() for tensor in tensors]
    for f, w in zip(output_and_gradients(ours, doubles), output_and_gradients(theirs, doubles), strict=True):
        torch.testing.assert_close(f, w, rtol=0, atol=1e-9 * max(1.0, float(w.abs().max())))
    found, wanted = (output_and_gradients(module, list(tensors)) for module in (ours, theirs))
    torch.testing.assert_close(found[0], wanted[0], rtol=0, atol=atol)
    for f, w in zip(found[1:], wanted[1:], strict=True):
        assert distance(f, w) < 1e-2
        assert float(((f - w).abs() > 10 * atol * w.abs().max()).float().mean()) < 2e-3


def distance(found: Tensor, wanted: Tensor) -> float:
    """Root mean square of the difference, as a share of what is wanted."""
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-12))


class PublishedTransformer(nn.Module):
    """VoxelMorph's sampling as published: coordinates from -1 to 1 between the outermost voxels' centres."""

    grid: Tensor

    def __init__(self, size: tuple[int, ...], mode: str = "bilinear") -> None:
        super().__init__()
        self.mode = mode
        axes = torch.meshgrid(*(torch.arange(float(s)) for s in size), indexing="ij")
        self.register_buffer("grid", torch.stack(axes)[None])

    def forward(self, src: Tensor, flow: Tensor) -> Tensor:
        extent = flow.new_tensor(flow.shape[2:]).reshape(-1, *(1 for _ in flow.shape[2:])) - 1
        unit = (2 * ((self.grid + flow) / extent - 0.5)).movedim(1, -1).flip(-1)
        return F.grid_sample(src, unit, mode=self.mode, align_corners=True)


class PublishedIntegration(nn.Module):
    def __init__(self, inshape: tuple[int, ...], nsteps: int) -> None:
        super().__init__()
        self.nsteps = nsteps
        self.transformer = PublishedTransformer(inshape)

    def forward(self, vec: Tensor) -> Tensor:
        vec = vec / 2**self.nsteps
        for _ in range(self.nsteps):
            vec = vec + self.transformer(vec, vec)
        return vec


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_spatial_transformer_is_voxelmorphs(size: tuple[int, ...], mode: str) -> None:
    image, flow = random(2, 3, *size), random(2, len(size), *size, seed=1, scale=2)
    assert_same(SpatialTransformer(size, mode=mode), PublishedTransformer(size, mode), image, flow)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("nsteps", [0, 1, 7])
def test_vec_int_is_voxelmorphs(size: tuple[int, ...], nsteps: int) -> None:
    assert_same(VecInt(size, nsteps), PublishedIntegration(size, nsteps), smooth(2, len(size), *size))


class Registration(nn.Module):
    """A network as VoxelMorph builds it, of the published layers or of ours."""

    output_names = ("moved", "flow")

    def __init__(
        self, transformer: type[nn.Module], integration: type[nn.Module], size: tuple[int, ...] = (8, 8, 8)
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(2, 3, 3, padding=1)
        self.integrate = integration(size, 7)
        self.transformer = transformer(size)

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        flow = self.integrate(self.conv(torch.cat([source, target], 1)))
        return self.transformer(source, flow), flow


def test_checkpoints_with_grids_are_taken_strictly() -> None:
    theirs = Registration(PublishedTransformer, PublishedIntegration)
    state = theirs.state_dict()
    assert {"transformer.grid", "integrate.transformer.grid"} < set(state)
    ours = Registration(SpatialTransformer, VecInt)
    with torch.no_grad():
        ours.conv.weight.zero_()
    ours.load_state_dict(state, strict=True)
    pair = smooth(1, 1, 8, 8, 8), smooth(1, 1, 8, 8, 8, seed=1)
    torch.testing.assert_close(ours(*pair), theirs(*pair), rtol=0, atol=1e-5)
    assert set(ours.state_dict()) == {"conv.weight", "conv.bias"}
    assert set(state) == set(theirs.state_dict())  # the caller's dictionary is left alone
    other = Registration(PublishedTransformer, PublishedIntegration, (8, 8, 9)).state_dict()
    with pytest.raises(RuntimeError, match=r"(?s)integrate.transformer.grid: want .*8, 8, 8.*8, 8, 9"):
        ours.load_state_dict(other)
    with pytest.raises(RuntimeError, match="gird"):
        ours.load_state_dict({**state, "integrate.transformer.gird": torch.zeros(1)})


@pytest.mark.filterwarnings("ignore:monai.networks.blocks.Warp")
@pytest.mark.parametrize("size", [*SIZES, (1, 6, 7), (6, 1)], ids=str)
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_warp_and_dvf2ddf_are_monais(mode: str, padding_mode: str, size: tuple[int, ...]) -> None:
    image, ddf = random(2, 3, *size), random(2, len(size), *size, seed=1, scale=2)
    assert_same(Warp(mode, padding_mode), monai_warp.Warp(mode, padding_mode), image, ddf)
    theirs = monai_warp.DVF2DDF(5, mode, padding_mode)
    assert_same(DVF2DDF(5, mode, padding_mode), theirs, smooth(2, len(size), *size), atol=2e-5)


@pytest.mark.filterwarnings("ignore:monai.networks.blocks.Warp")
def test_defaults_enumerations_and_jitter_are_monais() -> None:
    from monai.utils import GridSampleMode, GridSamplePadMode

    image, ddf = random(2, 1, 7, 8, 9), random(2, 3, 7, 8, 9, seed=1)
    assert_same(Warp(), monai_warp.Warp(), image, ddf)
    assert_same(DVF2DDF(), monai_warp.DVF2DDF(), smooth(1, 3, 7, 8, 9))
    assert_same(Warp(jitter=True), monai_warp.Warp(jitter=True), image, ddf)
    modes = GridSampleMode.NEAREST, GridSamplePadMode.ZEROS
    assert_same(Warp(*modes), monai_warp.Warp(*modes), image, ddf)


def test_numbers_are_those_of_monais_compiled_extension() -> None:
    image, ddf = random(1, 1, 7, 8), random(1, 2, 7, 8, seed=1, scale=4)
    for number, name in ((0, "border"), (1, "reflection"), (7, "zeros")):
        assert torch.equal(Warp(1, number)(image, ddf), Warp("bilinear", name)(image, ddf))
    rolled = torch.zeros(1, 2, 7, 8)
    rolled[:, 1] = 3
    torch.testing.assert_close(Warp(1, 5)(image, rolled), image.roll(-3, -1))
    torch.testing.assert_close(Warp(0, 5)(image, rolled), image.roll(-3, -1))


def monai_networks() -> Iterator[Any]:
    from monai.networks.nets import VoxelMorph, VoxelMorphUNet

    for half_res in (False, True):
        for steps in (0, 7):
            for dims in (3,) if half_res else (2, 3):
                backbone = VoxelMorphUNet(
                    spatial_dims=dims,
                    in_channels=2,
                    unet_out_channels=8,
                    channels=(4, 8, 8, 8),
                    final_conv_channels=(4, 4),
                )
                yield VoxelMorph(backbone, integration_steps=steps, half_res=half_res, spatial_dims=dims)


def parameter_gradients(network: nn.Module, outputs: tuple[Tensor, ...]) -> list[Tensor]:
    loss = sum((output * random(*output.shape, seed=5).to(output.dtype)).mean() for output in outputs)
    assert isinstance(loss, Tensor)
    found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def assert_same_network(theirs: nn.Module, ours: nn.Module, *inputs: Tensor) -> None:
    for dtype, atol, share in ((torch.float32, 2e-5, 1e-2), (torch.float64, 1e-9, 1e-9)):
        cast = [tensor.to(dtype) for tensor in inputs]
        results, wanted = ours.to(dtype)(*cast), theirs.to(dtype)(*cast)
        for result, expected in zip(results, wanted, strict=True):
            assert expected.std() > 0.01
            torch.testing.assert_close(result, expected, rtol=0, atol=atol)
        found, expected = parameter_gradients(ours, results), parameter_gradients(theirs, wanted)
        assert len(found) == len(expected) > 4
        for f, w in zip(found, expected, strict=True):
            assert distance(f, w) < share


@pytest.mark.filterwarnings("ignore:monai.networks.blocks.Warp")
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_monais_voxelmorph_gives_the_same_with_our_blocks() -> None:
    torch.manual_seed(0)
    for theirs in monai_networks():
        ours = copy.deepcopy(theirs)
        ours.warp = Warp(mode="bilinear", padding_mode="zeros")
        if theirs.diffeomorphic:
            ours.dvf2ddf = DVF2DDF(num_steps=7, mode="bilinear", padding_mode="zeros")
        ours.load_state_dict(theirs.state_dict(), strict=True)
        shape = (1, 1, *(16,) * theirs.spatial_dims)
        assert_same_network(theirs, ours, smooth(*shape), smooth(*shape, seed=1))


class WithWarp(nn.Module):
    """A network that predicts a displacement of an image, and the warp that follows it."""

    def __init__(self, network: nn.Module, warp: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.warp = warp

    def forward(self, pair: Tensor) -> tuple[Tensor, Tensor]:
        ddf = self.network(pair)
        return self.warp(pair[:, :1], ddf), ddf


@pytest.mark.filterwarnings("ignore:monai.networks.blocks.Warp")
def test_monais_local_and_global_networks_give_the_same_with_our_warp() -> None:
    from monai.networks.nets import GlobalNet, LocalNet

    torch.manual_seed(0)
    local = LocalNet(
        spatial_dims=3, in_channels=2, num_channel_initial=4, extract_levels=(0, 1, 2), out_channels=3
    )
    whole = GlobalNet(image_size=[16, 16, 16], spatial_dims=3, in_channels=2, num_channel_initial=4, depth=2)
    head = whole.output_block
    head.register_buffer("grid", head.__dict__.pop("grid"))  # so that it follows the network's type
    with torch.no_grad():  # it starts as the identity, where the interpolation has its kinks
        head.fc.weight.normal_(std=0.01)
        head.fc.bias.add_(random(12, scale=0.05))
    for network in (local, whole):
        theirs = WithWarp(network, monai_warp.Warp())
        assert_same_network(theirs, WithWarp(network, Warp()), smooth(2, 2, 16, 16, 16))


def test_monais_tensors_are_taken() -> None:
    from monai.data import MetaTensor

    image, ddf = random(1, 1, 6, 7, 8), random(1, 3, 6, 7, 8)
    meta = MetaTensor(image.clone(), meta={"name": "x"}).requires_grad_()
    result = Warp()(meta, ddf)
    assert isinstance(result, MetaTensor) and result.meta["name"] == "x"
    result.square().sum().backward()
    assert meta.grad is not None
    plain = image.clone().requires_grad_()
    Warp()(plain, ddf).square().sum().backward()
    torch.testing.assert_close(torch.Tensor(meta.grad), plain.grad)


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16])
def test_types_are_widened(narrow: torch.dtype) -> None:
    image, flow = random(1, 1, 6, 8), random(1, 2, 6, 8, seed=1)
    wide = flow.to(narrow).float()
    assert torch.equal(
        SpatialTransformer((6, 8))(image, flow.to(narrow)), SpatialTransformer((6, 8))(image, wide)
    )
    assert VecInt((6, 8), 3)(flow.to(narrow)).dtype == narrow
    with torch.autocast("cpu", torch.bfloat16):
        for found in (DVF2DDF()(flow.to(narrow)), VecInt((6, 8), 7)(flow.to(narrow))):
            torch.testing.assert_close(found, DVF2DDF()(wide), rtol=0, atol=0)


def test_a_swapped_network_compiles_into_one_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    network = Registration(SpatialTransformer, VecInt)
    pair = random(1, 1, 8, 8, 8), random(1, 1, 8, 8, 8, seed=1)
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    for found, wanted in zip(compiled(*pair), network(*pair), strict=True):
        torch.testing.assert_close(found, wanted)
    found, wanted = (parameter_gradients(network, run(*pair)) for run in (compiled, network))
    torch.testing.assert_close(found, wanted)


def test_an_exported_network_has_one_node_per_module_and_runs_as_a_bundle(tmp_path: Path) -> None:
    network = Registration(SpatialTransformer, VecInt).eval()
    shapes = {"source": "1x1x8x8x8", "target": "1x1x8x8x8"}
    path = tmp_path / "registration.ekb"
    bundle = pipeline.compile(network, shapes=shapes, backend="onnxruntime", output=path)
    steps = [(step.op, dict(step.options)) for step in bundle.manifest.after]
    assert steps == [
        ("integrate_velocity", {"steps": 7, "boundary": "zero"}),
        ("warp", {"order": 1, "boundary": "zero"}),
    ]
    source, target = smooth(1, 1, 8, 8, 8), smooth(1, 1, 8, 8, 8, seed=1)
    with torch.no_grad():
        wanted = dict(zip(network.output_names, network(source, target), strict=True))
    with runtime.open(path) as session:
        found = session.run({"source": source.numpy(), "target": target.numpy()})
    for name, tensor in wanted.items():
        np.testing.assert_allclose(found[name], tensor.numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "module", [SpatialTransformer((6, 8)), VecInt((6, 8), 3), Warp("nearest", "reflection"), DVF2DDF()]
)
def test_modules_are_copied_and_pickled(module: nn.Module) -> None:
    tensors = [random(1, 2, 6, 8)] * (2 if isinstance(module, (SpatialTransformer, Warp)) else 1)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(*tensors), module(*tensors))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SpatialTransformer((8, 8), mode="bicubic"), "mode: want one of 'bilinear', 'nearest'"),
        (lambda: SpatialTransformer((8,)), r"size: want \(D, H, W\)"),
        (lambda: VecInt((8, 8, 0), 7), "size"),
        (lambda: VecInt((8, 8, 8), -1), "nsteps: want an integer from 0"),
        (lambda: Warp("bicubic"), "mode: want .* got 'bicubic'"),
        (lambda: Warp(3), "mode: want .* got 3"),
        (lambda: Warp(padding_mode="edge"), "padding_mode: want one of 'zeros'"),
        (lambda: DVF2DDF(0), "num_steps: want an integer from 1"),
        (lambda: SpatialTransformer((8, 8))(random(1, 1, 8, 9), random(1, 2, 8, 9)), "grid"),
        (lambda: VecInt((8, 8), 7)(random(1, 2, 8, 9)), "grid"),
        (lambda: Warp()(random(1, 1, 8, 8), random(1, 2, 8, 9)), "want batch, grid"),
        (lambda: Warp()(torch.zeros(1, 1, 8, 8, dtype=torch.uint8), random(1, 2, 8, 8)), "uint8"),
        (lambda: DVF2DDF()(random(1, 3, 8, 8)), "velocity_vox"),
    ],
)
def test_refuses_bad_arguments(make: Callable[[], object], text: str) -> None:
    with pytest.raises(KernelError, match=text):
        make()


@pytest.mark.filterwarnings("ignore:monai.networks.blocks.Warp")
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_the_code_of_the_page_runs() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 7
    names: dict[str, Any] = {"__name__": "page"}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    torch.testing.assert_close(names["same"], names["image"])
    exported = onnx.ModelProto.FromString(names["file"].getvalue())
    own = [node.op_type for node in exported.graph.node if node.domain == "edgekit"]
    assert own == names["types"]
    assert names["velocity_vox"].grad.abs().sum() > 0 and names["gradient"].abs().sum() > 0
    assert all(p.grad is not None for p in names["network"].backbone.net[0].parameters())

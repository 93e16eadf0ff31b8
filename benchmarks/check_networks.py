"""Write ``docs/check.md``: what the rules of TensorRT say of the zoo's networks and of MONAI's.

``python benchmarks/check_networks.py`` writes the page anew. Nothing is compiled, and no GPU is needed.
MONAI's networks are small ones of each kind: what is refused does not depend on the number of channels.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from edgekit import check, pipeline
from edgekit import target as targets
from edgekit.backends.tensorrt.rules import MOST_DLA_PARTS
from edgekit.check import Software
from edgekit.graph.graph import Graph
from edgekit.zoo import MODELS

PAGE = Path(__file__).parents[1] / "docs" / "check.md"
TARGET = "jetson-orin-nx-16gb"
JETPACKS = ("5.1", "6.0", "6.2", "7.2")

_UNET: Mapping[str, Any] = {"channels": (8, 16, 32), "strides": (2, 2), "num_res_units": 2}
# Inputs of the zoo's networks: the smallest that each takes.
ZOO = {
    "register3d": {"moving": "1x1x64x64x64", "fixed": "1x1x64x64x64"},
    "denoise2d": {"image": "1x1x64x64"},
    "segment2d": {"image": "1x1x192x192"},
    "segment3d": {"image": "1x1x32x32x32"},
    "classify2d": {"image": "1x1x128x128"},
}

HEAD = f"""# What builds for a Jetson

`edgekit check MODEL --target jetson-…` says whether a model will build, on which JetPack, and where each
layer will run: on the GPU by TensorRT, on the deep-learning accelerator, in one of edgekit's plug-ins, or
by another backend. Every finding names the rule, its source, and what to write instead; `--json` has all
nodes. It compiles nothing and needs no TensorRT: what each version builds is written down as rules, from
public sources. **They have not yet been held against TensorRT on a device.** Memory is a plain count of
weights and of what lives between layers; workspace and time are not estimated.

```
edgekit check model.onnx --target {TARGET}
edgekit check model.onnx --target {TARGET} --jetpack 5.1 --json
```

Exit code 0: it builds with the JetPack that was named, else the target's own. 3: it does not.

## Rules

`edgekit/backends/tensorrt/rules/` has a table entry for each: operators, versions, ranks, types and
attributes, or a named predicate. `tests/backends/test_tensorrt_rules.py` holds a minimal model for each, in
eleven versions. Where edgekit can write something else, a pass does so by itself on the way to a Jetson:

| pass | what it writes | for |
| --- | --- | --- |
| `nativize` | 5-D GridSample as `edgekit.GridSample3d`, `Warp`, … | before 11.2 |
| `decompose` | LayerNormalization, RMSNormalization, Gelu, Mish, Swish, CastLike | older parsers |
| `decompose` | GroupNormalization of operator set 21 | before 10.9 |
| `decompose` | InstanceNormalization with computed scale, or of other ranks | 8.5 |
| `decompose` | AffineGrid of a fixed size | all |
| `decompose` | Resize that is cubic in volumes, antialiased, or of some axes | all |
| `lower_opset` | an older operator set | where the model's is newer than the parser's |
| `lower_opset` | 4-D GridSample under its old name, `bilinear` | before 11.2, which read it as `nearest` |

`subpixel` writes a transposed convolution as a convolution whose channels become voxels. It is for networks
that are quantized afterwards (TensorRT runs a transposed convolution of a volume in float16 between int8
neighbours, and the accelerator takes none with padding) and is not run by itself. `fold_upsampling`, which
does the opposite for processors, is left out for targets with TensorRT.

## Networks

Of float32 networks on TITLE. `rewritten` counts the nodes that passes take care of, by rule. The last
column counts layers on the accelerator with JetPack 6.2, and the stretches they are in, of which it has 16
loaded at once. MONAI's are small networks of each kind.

"""


@dataclass(frozen=True)
class Monai:
    """One of MONAI's networks: options, and the lengths of its one input."""

    name: str
    dimensions: int
    size: int
    options: Mapping[str, Any]

    def build(self) -> nn.Module:
        """The module, ready for inference."""
        from monai.networks import nets

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return getattr(nets, self.name)(**self.options).eval()  # type: ignore[no-any-return]

    @property
    def shape(self) -> str:
        """Its input's shape."""
        return "x".join(map(str, (1, 1, *[self.size] * self.dimensions)))


def _both(name: str, size: int, of: Callable[[int], Mapping[str, Any]]) -> list[Monai]:
    return [Monai(name, dimensions, size, of(dimensions)) for dimensions in (2, 3)]


def _common(dimensions: int, **options: Any) -> dict[str, Any]:
    return {"spatial_dims": dimensions, "in_channels": 1, "out_channels": 2, **options}


NETWORKS = {
    "UNet, instance norm": _both("UNet", 16, lambda d: _common(d, **_UNET)),
    "UNet, group norm": _both("UNet", 16, lambda d: _common(d, norm=("group", {"num_groups": 2}), **_UNET)),
    "BasicUNet": _both("BasicUNet", 32, lambda d: _common(d, features=(8, 8, 16, 16, 16, 8))),
    "AttentionUnet": _both("AttentionUnet", 16, lambda d: _common(d, channels=(8, 16, 32), strides=(2, 2))),
    "SegResNet": _both("SegResNet", 16, lambda d: _common(d, init_filters=8)),
    "VNet": _both("VNet", 32, _common),
    "DynUNet": _both(
        "DynUNet",
        32,
        lambda d: _common(
            d, kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2], filters=[8, 16, 32]
        ),
    ),
    "DenseNet": _both(
        "DenseNet", 32, lambda d: _common(d, init_features=16, growth_rate=8, block_config=(2, 2))
    ),
    "UNETR": _both(
        "UNETR",
        32,
        lambda d: {
            "in_channels": 1,
            "out_channels": 2,
            "img_size": [32] * d,
            "feature_size": 8,
            "hidden_size": 32,
            "mlp_dim": 64,
            "num_heads": 4,
            "spatial_dims": d,
        },
    ),
    "SwinUNETR": _both(
        "SwinUNETR", 64, lambda d: _common(d, feature_size=12, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8))
    ),
}


def graphs() -> Iterator[tuple[str, Graph]]:
    """Every network of the page by title, before passes."""
    yield from zoo_graphs()
    for title, networks in NETWORKS.items():
        for one in networks:
            module = one.build()
            yield f"{title}, {one.dimensions}-D", pipeline.take_in(module, shapes={"": one.shape})


def zoo_graphs(names: Iterable[str] = tuple(MODELS)) -> Iterator[tuple[str, Graph]]:
    """The zoo's networks by name, before passes."""
    for name in names:
        model = MODELS[name]
        factory, _, function = model.factory.partition(":")
        module: nn.Module = getattr(importlib.import_module(factory), function)()
        module.load_state_dict(load_file(model.weights))
        yield f"zoo {name}", pipeline.take_in(module, shapes=ZOO[name])


def row(title: str, graph: Graph) -> str:
    """A network's line of the table."""
    found = {}
    for jetpack in JETPACKS:
        device = targets.with_jetpack(targets.find(TARGET), jetpack)
        found[jetpack] = check.check_graph(graph, device, "tensorrt")
    cells = [title, *(_cell(found[jetpack]) for jetpack in JETPACKS), _accelerator(found["6.2"])]
    return f"| {' | '.join(cells)} |\n"


def _cell(software: Software) -> str:
    (build,) = software.builds
    rewritten = Counter(finding.rule for finding in build.rewritten if finding.severity == "refused")
    left = Counter(finding.rule for finding in build.left if finding.severity == "refused")
    parts = [build.verdict]
    for word, counts in (("", left), ("rewritten", rewritten)):
        if counts:
            rules = ", ".join(rule + (f" ×{n}" if n > 1 else "") for rule, n in counts.items())
            parts.append(f"{word} {rules}".strip())
    plugins = (build.places or {}).get("plug-in", 0)
    return "; ".join(parts + ([f"{plugins} in plug-ins"] if plugins else []))


def _accelerator(software: Software) -> str:
    (build,) = software.builds
    if not build.dla:
        return "-"
    of = sum(build.dla.values())
    parts = f" in {build.dla_parts}" if build.dla_parts else ""
    many = ", too many" if build.dla_parts > MOST_DLA_PARTS else ""
    return f"{build.dla.get('DLA', 0)} of {of}{parts}{many}"


def head() -> str:
    """The page up to the rows of its table."""
    columns = ["network", *(f"JetPack {one}" for one in JETPACKS), "accelerator"]
    rule = " | ".join(["---"] * len(columns))
    text = HEAD.replace("TITLE", targets.find(TARGET).title)
    return f"{text}| {' | '.join(columns)} |\n| {rule} |\n"


def main() -> int:
    """Write the page."""
    page = head()
    for title, graph in graphs():  # one at a time: a page takes minutes
        line = row(title, graph)
        print(line, end="", flush=True)
        page += line
    PAGE.write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())

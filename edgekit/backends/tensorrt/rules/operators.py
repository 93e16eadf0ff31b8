"""Rules on operators, one entry each. What a version does not import at all comes from its parser's table."""

from __future__ import annotations

from edgekit.backends.tensorrt.rules import predicates as p
from edgekit.backends.tensorrt.rules.rule import EVERY, Rule
from edgekit.hosts import tensorrt_parser

_POOLINGS = ("MaxPool", "AveragePool", "LpPool")
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "ReduceSumSquare",
)  # fmt: skip
# What the pass decompose writes in simpler operators.
_DECOMPOSED = {
    "LayerNormalization", "GroupNormalization", "RMSNormalization", "Gelu", "Mish", "Swish", "CastLike",
}  # fmt: skip
_SIMPLER = "write it in simpler operators"


def _not_yet(operator: str, version: tuple[int, ...]) -> Rule:
    written = ".".join(map(str, version))
    mine = operator in _DECOMPOSED
    return Rule(
        f"missing.{operator}",
        (operator,),
        f"the parser has {operator} from {written} on",
        "changelog" if version >= (10, 4) else "table",
        until=written,
        rewrite=_SIMPLER if mine else "end the network before it, or write it in other operators",
        rewrite_pass="decompose" if mine else "",
    )


MISSING = tuple(
    _not_yet(operator, version)
    for operator, version in tensorrt_parser.OPERATORS.items()
    if version > tensorrt_parser.OLDEST
)

GENERAL = (
    Rule(
        "missing.AffineGrid",
        ("AffineGrid",),
        "no version's parser has AffineGrid",
        "table",
        rewrite=_SIMPLER + ", for a fixed size",
        rewrite_pass="decompose",
    ),
    Rule(
        "operator.unknown",
        EVERY,
        "no version's parser has this operator",
        "table",
        when=p.not_imported,
        rewrite="end the network before it, or write it in other operators",
    ),
    Rule(
        "operator.domain",
        EVERY,
        "an operator of a domain that neither TensorRT nor edgekit's plug-ins know",
        "table",
        when=p.unknown_domain,
        rewrite="export the model without operators of other runtimes",
    ),
    Rule(
        "type.unknown",
        EVERY,
        "TensorRT has no numbers of this type",
        "table",
        when=p.strange_type,
        rewrite="export with float32, int32 or int64",
    ),
    Rule(
        "type.bfloat16",
        EVERY,
        "bfloat16 comes with 9.0",
        "changelog",
        until="9.0",
        when=p.has_type("bfloat16"),
        rewrite="--precision float16",
    ),
    Rule(
        "type.float64",
        EVERY,
        "float64 is computed in float32",
        "table",
        when=p.has_type("float64"),
        rewrite="export in float32",
        severity="falls back",
    ),
    Rule(
        "type.uint8",
        EVERY,
        "uint8 may be an input or output of the network and cast, nothing else",
        "table",
        when=p.computes_uint8,
        rewrite="cast it to float32 first",
    ),
    Rule(
        "type.int8",
        EVERY,
        "int8 stands between QuantizeLinear and DequantizeLinear only",
        "table",
        since="9.0",
        when=p.computes_int8,
        rewrite="cast it to int32 first",
    ),
    Rule(
        "shape.rank",
        EVERY,
        f"a tensor has at most {p.MAX_RANK} axes",
        "header",
        when=p.too_many_axes,
        rewrite="join axes with Reshape",
    ),
)

NORMALIZATIONS = (
    Rule(
        "instance_norm.computed",
        ("InstanceNormalization",),
        "scale and bias have to be weights",
        "table",
        until="8.6",
        when=p.computed(1, 2),
        rewrite=_SIMPLER,
        rewrite_pass="decompose",
    ),
    Rule(
        "instance_norm.rank",
        ("InstanceNormalization",),
        "the image has 3 to 5 axes",
        "table",
        until="8.6",
        when=p.rank_beyond(3, 5),
        rewrite=_SIMPLER,
        rewrite_pass="decompose",
    ),
    Rule(
        "layer_norm.outputs",
        ("LayerNormalization",),
        "only the first output is there",
        "table",
        since="8.6",
        when=p.further_outputs,
        rewrite=_SIMPLER,
        rewrite_pass="decompose",
    ),
    Rule(
        "group_norm.channels",
        ("GroupNormalization",),
        "scales for channels, as operator set 21 has them, are understood from 10.9 on",
        "changelog",
        since="8.6",
        until="10.9",
        rewrite=_SIMPLER,
        rewrite_pass="decompose",
    ),
)

SAMPLING = (
    Rule(
        "grid_sample.volume",
        ("GridSample",),
        "volumes are sampled from 11.2 on",
        "11.2",
        until="11.2",
        ranks=(5,),
        rewrite="edgekit.GridSample3d, which is a plug-in",
        rewrite_pass="nativize",
    ),
    Rule(
        "grid_sample.rank",
        ("GridSample",),
        "the image has 4 or 5 axes",
        "table",
        when=p.rank_beyond(4, 5),
        rewrite="add an axis of length 1",
    ),
    Rule(
        "grid_sample.mode",
        ("GridSample",),
        "the parser does not know the names of modes of operator set 20, and samples the nearest voxel "
        "instead",
        "grid names",
        until="11.2",
        when=p.renamed_grid_mode,
        rewrite="operator set 19, in which it is called bilinear",
        rewrite_pass="lower_opset",
    ),
    Rule(
        "resize.cubic",
        ("Resize",),
        "cubic interpolation is along the last two axes only",
        "importers",
        when=p.scales_more_than(2, "cubic"),
        rewrite="a product with a matrix along each axis",
        rewrite_pass="decompose",
    ),
    Rule(
        "resize.linear",
        ("Resize",),
        "linear interpolation is along the last three axes only",
        "importers",
        when=p.scales_more_than(3, "linear"),
        rewrite="a product with a matrix along each axis",
        rewrite_pass="decompose",
    ),
    Rule(
        "resize.antialias",
        ("Resize",),
        "there is no antialiasing",
        "table",
        taken={"antialias": (0,)},
        rewrite="a product with a matrix along each axis",
        rewrite_pass="decompose",
    ),
    Rule(
        "resize.aspect",
        ("Resize",),
        "the aspect ratio is not kept",
        "table",
        taken={"keep_aspect_ratio_policy": ("stretch",)},
        rewrite="a product with a matrix along each axis",
        rewrite_pass="decompose",
    ),
    Rule(
        "resize.coordinates",
        ("Resize",),
        "these coordinates are not known",
        "table",
        taken={
            "coordinate_transformation_mode": (
                "half_pixel",
                "pytorch_half_pixel",
                "tf_half_pixel_for_nn",
                "asymmetric",
                "align_corners",
            )
        },
        rewrite="a product with a matrix along each axis",
        rewrite_pass="decompose",
    ),
    Rule(
        "resize.axes",
        ("Resize",),
        "scales are for all axes, in order",
        "table",
        when=p.scales_some_axes,
        rewrite="scales of 1 for the other axes",
        rewrite_pass="decompose",
    ),
    Rule(
        "resize.rounding",
        ("Resize",),
        "tf_half_pixel_for_nn goes with round_prefer_floor only",
        "checkers",
        when=p.other_nearest_mode,
        rewrite="a product with a matrix along each axis",
        rewrite_pass="decompose",
    ),
)

WINDOWS = (
    Rule(
        "max_pool.indices",
        ("MaxPool",),
        "there is no output of indices",
        "table",
        when=p.further_outputs,
        rewrite="upsample with Resize or ConvTranspose instead of MaxUnpool",
    ),
    Rule(
        "pool.dilations",
        _POOLINGS,
        "windows have no gaps; 8.5 and 8.6 do not even look",
        "table",
        when=lambda site: any(step != 1 for step in site.get("dilations", ())),
        rewrite="a larger window without gaps, and train anew",
    ),
    Rule("pool.rank", _POOLINGS, "pooling is along 1 to 3 axes", "table", when=p.rank_beyond(3, 5)),
    Rule(
        "conv.rank",
        ("Conv", "ConvTranspose"),
        "convolution is along 1 to 3 axes",
        "header",
        when=p.rank_beyond(3, 5),
        rewrite="join axes with Reshape",
    ),
    Rule(
        "deform_conv.rank",
        ("DeformConv",),
        "deformable convolution is along 1 or 2 axes",
        "table",
        since="10.1",
        when=p.rank_beyond(3, 4),
    ),
)

OTHERS = (
    Rule(
        "top_k.count",
        ("TopK",),
        f"K is at most {p.MAX_TOP_K}",
        "header",
        when=p.top_k_beyond,
        rewrite="take the largest of parts first, or sort after the network",
    ),
    Rule(
        "top_k.sorted",
        ("TopK",),
        "results are sorted",
        "table",
        since="10.0",
        taken={"sorted": (1,)},
        rewrite="sorted = 1",
    ),
    Rule(
        "top_k.computed",
        ("TopK",),
        "K has to be a weight",
        "table",
        until="8.6",
        when=p.computed(1),
        rewrite="export with a fixed K",
    ),
    Rule(
        "top_k.integers",
        ("TopK", "ArgMax", "ArgMin"),
        "it takes integers from 8.6 on",
        "changelog",
        until="8.6",
        dtypes=("int32", "int64"),
        rewrite="cast it to float32 first",
    ),
    Rule(
        "einsum.form",
        ("Einsum",),
        "an ellipsis, an index twice in one term and broadcasting come with 10.12",
        "changelog",
        until="10.12",
        when=p.einsum_beyond,
        rewrite="write it with MatMul, Transpose and Reshape",
    ),
    Rule(
        "einsum.letters",
        ("Einsum",),
        "indices are small letters",
        "checkers",
        when=p.capital_letters,
        rewrite="write the equation in small letters",
    ),
    Rule(
        "scatter_nd.reduction",
        ("ScatterND",),
        "values are replaced, not reduced",
        "table",
        taken={"reduction": ("none",)},
        rewrite="GatherND, the reduction, then ScatterND, where no index comes twice",
    ),
    Rule(
        "scatter_elements.reduction",
        ("ScatterElements",),
        "values are reduced from 10.0 on",
        "changelog",
        until="10.0",
        taken={"reduction": ("none",)},
        rewrite="GatherElements, the reduction, then ScatterElements, where no index comes twice",
    ),
    Rule(
        "pad.wrap", ("Pad",), "it wraps around from 10.0 on", "changelog", until="10.0",
        taken={"mode": ("constant", "reflect", "edge")}, rewrite="Slice both ends and Concat",
    ),
    Rule(
        "pad.axes", ("Pad",), "the axes have to be weights up to 10.3", "changelog", until="10.4",
        when=p.computed(3), rewrite="export with fixed axes",
    ),
    Rule(
        "reduce.axes", _REDUCTIONS, "the axes have to be weights", "table", when=p.computed(1),
        rewrite="export with fixed axes",
    ),
    Rule(
        "reduce.integers", _REDUCTIONS, "integers are reduced from 9.0 on", "table", until="9.0",
        dtypes=("int32", "int64"), rewrite="cast it to float32 first, or fix the shapes it is made of",
    ),
    Rule(
        "slice.axes", ("Slice",), "the axes have to be weights up to 10.2", "changelog", until="10.3",
        when=p.computed(3), rewrite="export with fixed axes",
    ),
    Rule(
        "squeeze.axes", ("Squeeze", "Unsqueeze"), "the axes have to be weights up to 10.6", "changelog",
        until="10.7", when=p.computed(1), rewrite="export with fixed axes",
    ),
    Rule(
        "cum_sum.axis", ("CumSum",), "the axis has to be a weight up to 10.7", "changelog", until="10.8",
        when=p.computed(1), rewrite="export with a fixed axis",
    ),
    Rule(
        "one_hot.depth", ("OneHot",), "the depth has to be a weight", "table", when=p.computed(1),
        rewrite="export with a fixed depth",
    ),
    Rule(
        "pow.integers", ("Pow",), "integers have powers from 10.12 on", "changelog", until="10.12",
        when=p.integer_base, rewrite="cast it to float32 first",
    ),
    Rule(
        "dropout.training", ("Dropout",), "it does not drop", "table", when=p.training,
        rewrite="export the model in eval mode",
    ),
    Rule(
        "lstm.layout", ("LSTM",), "the sequence is the first axis", "table", taken={"layout": (0,)},
        rewrite="Transpose before and after",
    ),
    Rule(
        "lstm.input_forget", ("LSTM",), "input and forget gates are not coupled", "table",
        taken={"input_forget": (0,)}, rewrite="train with separate gates",
    ),
)  # fmt: skip

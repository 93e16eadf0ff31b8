"""How a network is quantized, as data; what a target's arithmetic asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from edgekit.errors import UsageError, did_you_mean
from edgekit.passes.ranges import METHODS, Method
from edgekit.target import Target

Activation = Literal["int8", "uint8-where-non-negative"]

# Instruction sets that add products of bytes to 32 bits at once, as Linux names them.
_DOT_PRODUCTS = frozenset(("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"))


@dataclass(frozen=True)
class Recipe:
    """The choices of :class:`~edgekit.passes.quantize.QuantizePass`.

    Attributes:
        method: How far the type of an activation reaches; see
            :meth:`~edgekit.passes.ranges.TensorRange.magnitude`.
        keep: Names of nodes that stay in float32.
        activation: ``"int8"``: every activation is a signed byte with zero point 0, as TensorRT wants it.
            ``"uint8-where-non-negative"``: an activation that cannot be negative is an unsigned byte with
            zero point 0, which has twice as many steps; and where a concatenation joins signed ones, an
            unsigned byte with zero point 128, which OpenVINO computes rightly however it reads the file.
        weight_bits: 8, or 7 for processors whose products of bytes saturate: the sum of two neighbouring
            weights of one sign then has at most the size of one weight of 8 bits.
        correct_bias: Whether biases take up what rounding the weights shifts on average.
    """

    method: Method = "mse"
    keep: frozenset[str] = frozenset()
    activation: Activation = "uint8-where-non-negative"
    weight_bits: int = 8
    correct_bias: bool = True

    def __post_init__(self) -> None:
        for what, value, choices in (
            ("method", self.method, METHODS),
            ("activation", self.activation, get_args(Activation)),
        ):
            if value not in choices:
                near = did_you_mean(value, choices)
                raise UsageError(
                    f"unknown {what} {value!r}: want one of {', '.join(choices)}",
                    where="recipe",
                    hint=f"did you mean {near!r}?" if near else None,
                )
        if self.weight_bits not in (7, 8):
            raise UsageError(f"weights have 7 or 8 bits, got {self.weight_bits}", where="recipe")

    @staticmethod
    def for_target(target: Target, **changes: Any) -> Recipe:
        """What the target's processor asks for.

        x86 without VNNI multiplies bytes by ``pmaddubsw``, which adds two products into 16 bits and
        saturates: OpenVINO and ONNX Runtime both use it, so such targets get weights of 7 bits.

        Args:
            target: The device.
            **changes: Fields to set otherwise.

        Raises:
            UsageError: A field has a value that there is not.
        """
        if target.device == "cuda":
            recipe = Recipe(activation="int8")
        else:
            saturates = target.arch == "x86_64" and not _DOT_PRODUCTS & set(target.cpu_features)
            recipe = Recipe(weight_bits=7 if saturates else 8)
        return replace(recipe, **changes)

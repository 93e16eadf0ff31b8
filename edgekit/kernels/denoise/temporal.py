"""Noise of a clip, taken away frame by frame as they arrive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from edgekit.errors import KernelError
from edgekit.kernels.base import Case, Doubles, Floats, Operator, as_doubles
from edgekit.kernels.checks import (
    IMAGES,
    MAX_AXIS,
    MAX_ELEMENTS,
    check_choice,
    check_flag,
    check_input,
    check_number,
    check_output,
    check_threads,
)
from edgekit.kernels.denoise.motion import LIMIT, Motion
from edgekit.kernels.denoise.noise import estimate_noise
from edgekit.kernels.denoise.parts import Best, Kernels, Native, smoothing
from edgekit.kernels.denoise.temporal_reference import CONSISTENT, RESIDUAL_SIGMA, SEVERITY, denoised
from edgekit.kernels.exchange import like
from edgekit.spec import Array

LEAST_SIGMA, LARGEST = 1e-6, 1e30
# Pixels along an axis that noise is estimated from.
FEWEST = 4


class TemporalDenoiser:
    """Takes noise away from the frames of a clip as they arrive, without a delay.

    ::

        denoise = TemporalDenoiser((240, 320), dtype="uint8")
        for frame in clip:
            show(denoise(frame))

    What is known of a pixel follows its motion: the last result is pulled along the displacement between it
    and the new frame (:class:`edgekit.kernels.denoise.motion.Motion`, then :func:`edgekit.kernels.warp` by
    cubic convolution). There the new frame is blended in with a gain per pixel, that of a scalar Kalman
    filter (Kalman, 1960; recursive motion-compensated filtering of sequences: Dubois & Sabri, IEEE
    Transactions on Communications 1984)::

        uncertainty = gain of the last frame + 4 max(0, m - 1.5 (1 + gain of the last frame))
        gain        = max(1 / memory, uncertainty / (uncertainty + 1))

    ``m`` is the mean square of the residual under a Gaussian of 2 pixels, over the variance of the noise.
    Where the prediction explains the frame, the gain falls to ``1 / memory``; where motion could not be
    followed, after a cut or under something that appears, it rises towards 1, and nothing of the past shows.
    The constants are ours.

    Every frame takes the same steps. All memory is made here: about 40 float32 values per pixel. Frames of
    fewer than 16 pixels on a side are filtered without following motion. The results depend neither on the
    number of threads nor on the instruction set. One frame after the other: calls must not overlap.
    """

    def __init__(
        self,
        shape: Sequence[int],
        *,
        dtype: str = "float32",
        sigma: float | None = None,
        memory: float = 8.0,
        motion: bool = True,
        threads: int | None = None,
    ) -> None:
        """Make ready for the first frame.

        Args:
            shape: Of a frame, (H, W).
            dtype: Of a frame: ``"float32"``, ``"float16"``, ``"uint8"`` or ``"int16"``.
            sigma: Standard deviation of the noise, at least 1e-6. By default that of the first frame, by
                :func:`edgekit.kernels.estimate_noise`; frames in which it finds none are left as they are.
                It underestimates noise with a grain, such as speckle.
            memory: About how many frames are averaged at most, at least 1.
            motion: Whether to follow motion.
            threads: How many threads to use; as many as the process may run on by default.

        Raises:
            KernelError: An argument is not as described.
        """
        where = "TemporalDenoiser"
        size = np.asarray(shape)
        if size.shape != (2,) or size.dtype.kind not in "iu" or size.min() < 1 or size.max() > MAX_AXIS:
            raise KernelError(f"shape: want two integers from 1 to 2^24, got {shape!r}", where=where)
        check_choice(dtype, "dtype", IMAGES, where=where)
        count = check_threads(threads, where=where)
        options = _check_options(sigma, memory, motion, where)
        self._state = _State((int(size[0]), int(size[1])), np.dtype(dtype), Best(count), *options)
        self._result = np.empty(self._state.shape, dtype)

    def __call__(self, frame: Array, *, out: Array | None = None) -> Any:
        """The next frame without its noise.

        Args:
            frame: [H, W] of the type and shape given before, C-contiguous, of numbers within 1e30. A NumPy
                array or any that speaks DLPack.
            out: Where to write, apart from ``frame``.

        Returns:
            ``out``, or an array of the kind of ``frame`` in memory that the next call overwrites.

        Raises:
            KernelError: An argument is not as described; what is remembered stays as it was.
        """
        where = "TemporalDenoiser"
        source = check_input(frame, "frame", where=where, ranks=(2,), dtypes=(self._result.dtype.name,))
        if source.shape != self._state.shape:
            raise KernelError(
                f"frame: want shape {self._state.shape}, got {source.shape}",
                where=where,
                hint=f"TemporalDenoiser({source.shape}) for frames of this shape",
            )
        target = self._result
        if out is not None:
            target = check_output(out, (source.shape, source.dtype), (source,), where=where)
        elif np.may_share_memory(source, target):
            raise KernelError("frame: want memory of its own, got the last result", where=where, hint="out=")
        self._state.advance(source, target)
        return like(target, frame) if out is None else out

    def reset(self) -> None:
        """Forget all frames: the next one is the first of another clip."""
        self._state.reset()

    @property
    def flow_vox(self) -> Floats:
        """Displacement (y, x) [2, H, W] from the last frame to the result before it; overwritten."""
        flow: Floats = self._state.flow[0]
        return flow

    @property
    def gain(self) -> Floats:
        """How much the last frame counted at each pixel [H, W]; overwritten."""
        gain: Floats = self._state.known[0, 1]
        return gain


def temporal_denoise(
    clip: Array,
    *,
    sigma: float | None = None,
    memory: float = 8.0,
    motion: bool = True,
    out: Array | None = None,
    threads: int | None = None,
) -> Any:
    """All frames of a clip through a :class:`TemporalDenoiser`.

    Args:
        clip: [T, H, W], float32, float16, uint8 or int16, C-contiguous, of numbers within 1e30.
        sigma: As for :class:`TemporalDenoiser`.
        memory: As there.
        motion: As there.
        out: Where to write: shape and type of ``clip``, apart from it.
        threads: How many threads to use; as many as the process may run on by default.

    Returns:
        ``out``, or a new array like ``clip``, of its kind.

    Raises:
        KernelError: An argument is not as described.
    """
    where = "temporal_denoise"
    source = check_input(clip, "clip", where=where, ranks=(3,), dtypes=IMAGES)
    options = _check_options(sigma, memory, motion, where)
    target = check_output(out, source, (source,), where=where)
    count = check_threads(threads, where=where)
    _run(Best(count), source, target, *options)
    return like(target, clip) if out is None else out


def _check_options(
    sigma: object, memory: object, motion: object, where: str
) -> tuple[float | None, float, bool]:
    noise = None if sigma is None else check_number(sigma, "sigma", LEAST_SIGMA, where=where)
    return noise, check_number(memory, "memory", 1, where=where), check_flag(motion, "motion", where=where)


class _State:
    """What is known after a frame, in standard deviations of the noise, and all the memory there is."""

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        kernels: Kernels,
        sigma: float | None,
        memory: float,
        motion: bool,
    ) -> None:
        if 2 * shape[0] * shape[1] > MAX_ELEMENTS:
            raise KernelError(f"shape: want fewer than 2^30 pixels, got {shape}", where="TemporalDenoiser")
        self.shape, self._given, self._floor = shape, sigma, np.float32(1 / memory)
        self._kernels = kernels
        self._limits = np.iinfo(dtype) if dtype.kind in "iu" else None
        self._motion = Motion(*shape) if motion else None
        self._smooth = smoothing((), *shape, RESIDUAL_SIGMA)
        self._frame, self._square, self._mean = np.empty((3, *shape), np.float32)
        self.flow = np.zeros((1, 2, *shape), np.float32)
        # The result and the gain side by side, as both follow the motion.
        self.known, self._moved = np.empty((2, 1, 2, *shape), np.float32)
        self.reset()

    def reset(self) -> None:
        self._sigma = self._given
        self._begun = False
        self.flow[...] = 0
        self.known[0, 1] = 1

    def advance(self, frame: Array, out: Array) -> None:
        """Take in a frame and write the result."""
        low, high = float(np.min(frame)), float(np.max(frame))
        if not (low >= -LARGEST and high <= LARGEST):  # nor any is NaN
            raise KernelError(
                f"frame: want finite numbers within 1e30, got {low} to {high}",
                where="TemporalDenoiser",
                hint="np.nan_to_num(frame)",
            )
        if self._sigma is None:
            self._sigma = _estimated(frame)
        if self._sigma is None:
            np.copyto(out, frame)
            return
        np.copyto(self._frame, frame)
        np.multiply(self._frame, np.float32(1 / self._sigma), out=self._frame)
        if self._begun:
            self._blend()
            self._write(out, self._sigma)
            return
        self._begun = True
        np.copyto(self.known[0, 0], self._frame)
        np.copyto(out, frame)

    def _blend(self) -> None:
        known, moved, mean, square = self.known, self._moved, self._mean, self._square
        if self._motion:
            self._motion.find(self._kernels, self._frame, known[0, 0], self.flow)
            self._kernels.warp(known, self.flow, moved, 3)
        else:
            np.copyto(moved, known)
        predicted, gain = moved[0]
        np.clip(gain, self._floor, np.float32(1), out=gain)  # a cubic one exceeds what it goes through
        residual = self._frame
        np.subtract(self._frame, predicted, out=residual)
        np.clip(residual, -LIMIT, LIMIT, out=square)
        np.multiply(square, square, out=square)
        self._smooth(self._kernels, square, mean)
        np.add(gain, np.float32(1), out=square)
        np.multiply(square, np.float32(CONSISTENT), out=square)
        np.subtract(mean, square, out=mean)
        np.maximum(mean, np.float32(0), out=mean)
        np.multiply(mean, np.float32(SEVERITY), out=mean)
        np.add(gain, mean, out=gain)
        np.add(gain, np.float32(1), out=square)
        np.divide(gain, square, out=gain)
        np.maximum(gain, self._floor, out=known[0, 1])
        np.multiply(known[0, 1], residual, out=residual)
        np.add(predicted, residual, out=known[0, 0])

    def _write(self, out: Array, sigma: float) -> None:
        values = self._square
        np.multiply(self.known[0, 0], np.float32(sigma), out=values)
        if self._limits is not None:
            np.rint(values, out=values)
            np.clip(values, np.float32(self._limits.min), np.float32(self._limits.max), out=values)
        with np.errstate(over="ignore"):
            np.copyto(out, values, casting="unsafe")


def _estimated(frame: Array) -> float | None:
    """None where there is nothing to estimate it from."""
    if max(frame.shape) < FEWEST:
        return None
    sigma = float(estimate_noise(frame))
    return sigma if sigma >= LEAST_SIGMA else None


def _run(kernels: Kernels, clip: Array, out: Array, sigma: float | None, memory: float, motion: bool) -> None:
    state = _State((clip.shape[1], clip.shape[2]), clip.dtype, kernels, sigma, memory, motion)
    for frame, result in zip(clip, out, strict=True):
        state.advance(frame, result)


def _native(
    module: ModuleType,
    clip: Array,
    *,
    outputs: tuple[Array, ...],
    threads: int,
    isa: str,
    sigma: float | None = None,
    memory: float = 8.0,
    motion: bool = True,
) -> None:
    _run(Native(module, threads, isa), clip, outputs[0], sigma, memory, motion)


def reference(
    clip: Array, *, sigma: float | None = None, memory: float = 8.0, motion: bool = True
) -> tuple[Doubles]:
    """The definition in float64."""
    return (denoised(as_doubles(clip), sigma, memory, motion),)


def allocate(clip: Array, **options: object) -> tuple[Array]:
    """A new array for the result."""
    del options
    return (np.empty_like(clip),)


def moving_clip(rng: np.random.Generator, shape: tuple[int, int, int]) -> Doubles:
    """Frames [T, H, W] of waves and edges that move by about a pixel a frame, without noise."""
    frames, height, width = shape
    y, x = np.indices((height, width)).astype(np.float64)
    waves = [(rng.uniform(0.1, 0.7, 2), rng.uniform(0, 6)) for _ in range(6)]
    clip = np.empty(shape)
    for t in range(frames):
        v, u = y + 0.9 * t + np.sin(x / 9 + t / 3), x - 1.3 * t + np.cos(y / 7)
        texture = sum(np.sin(k[0] * v + k[1] * u + phase) for k, phase in waves)
        clip[t] = 100 + 12 * texture + 40 * np.tanh(3 * np.sin(v / 11) * np.sin(u / 13))
    return clip


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Clips of all types and of sizes around the resolutions that motion is looked for at."""
    sizes = ((1, 1), (3, 5), (15, 40), (16, 17), (33, 31), (32, 64), (71, 83), (1, 9), (19, 1))
    for number, size in enumerate(sizes):
        clean = moving_clip(rng, (4, *size))
        noisy = np.clip(clean + 8 * rng.standard_normal(clean.shape), 0, 255)
        for turn in range(2):
            clip = noisy.astype(IMAGES[(2 * turn + number) % 4])
            sigma = None if (number + turn) % 3 == 0 and min(size) >= 4 else 8.0
            options = {"sigma": sigma, "memory": (8.0, 3.0)[turn], "motion": number % 4 != 3}
            yield Case(f"{clip.shape} {clip.dtype} {options}", (clip,), options)
    cut = np.concatenate([noisy[:2], 200 - noisy[2:]]).astype(np.float32)
    yield Case("cut", (cut,), {"sigma": 8.0})


# Rounding moves pixels a little, by as much as the steps to a displacement amplify it.
OPERATOR = Operator(
    name="temporal_denoise",
    function=temporal_denoise,
    reference=reference,
    allocate=allocate,
    native=_native,
    tolerance=1e-5,
    cases=cases,
    numba="edgekit.kernels.numba.parts:temporal_denoise",
)

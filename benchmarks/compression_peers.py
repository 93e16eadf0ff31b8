"""What others make of the same model and the same calibration data, and how it is run.

ONNX Runtime's static quantizer with each of its range methods, NNCF on the ONNX graph and on OpenVINO's form
of it. Each gets the calibration samples one after another, as its documentation says, and default settings
otherwise. What a tool refuses or fails at is kept as the reason.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import isolation
from edgekit.errors import CompileError, EdgekitError, InternalError
from edgekit.spec import Array

Feeds = Mapping[str, Array]
Run = Callable[[Feeds], dict[str, Array]]


@dataclass(frozen=True)
class PeerModel:
    """A model that a peer made.

    Attributes:
        name: The tool and its setting.
        runtime: ``"onnxruntime"`` or ``"openvino"``.
        content: An ONNX file's bytes; or, of OpenVINO's form, the structure and the weights.
    """

    name: str
    runtime: str
    content: tuple[bytes, ...]

    @property
    def size_bytes(self) -> int:
        """Size of the file or files."""
        return sum(map(len, self.content))

    def open(self, threads: int) -> Run:
        """Load it into its runtime; results by name."""
        opened = {"onnxruntime": _open_onnxruntime, "openvino": _open_openvino}[self.runtime]
        return opened(self.content, threads)


def onnxruntime_quantized(
    model: bytes, samples: Sequence[Feeds], *, method: str, unsigned: bool, reduce_range: bool = False
) -> bytes:
    """ONNX Runtime's ``quantize_static`` to Q/DQ, weights per channel; ``method`` as it names them."""
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds: Iterator[Feeds] = iter(samples)

        def get_next(self) -> dict[str, Array] | None:
            feeds = next(self._feeds, None)
            return dict(feeds) if feeds is not None else None

    with tempfile.TemporaryDirectory() as folder:
        source, prepared, made = (
            Path(folder) / name for name in ("model.onnx", "prepared.onnx", "made.onnx")
        )
        source.write_bytes(model)
        q.shape_inference.quant_pre_process(str(source), str(prepared))
        q.quantize_static(
            str(prepared),
            str(made),
            Reader(),
            quant_format=q.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduce_range,
            activation_type=q.QuantType.QUInt8 if unsigned else q.QuantType.QInt8,
            weight_type=q.QuantType.QInt8,
            calibrate_method=getattr(q.CalibrationMethod, method),
            extra_options={"ActivationSymmetric": not unsigned, "WeightSymmetric": True},
        )
        return made.read_bytes()


def nncf_on_onnx(model: bytes, samples: Sequence[Feeds]) -> bytes:
    """NNCF's post-training quantization of an ONNX graph."""
    import nncf
    import onnx

    dataset = nncf.Dataset(list(samples), dict)
    quantized = nncf.quantize(onnx.load_from_string(model), dataset, subset_size=len(samples))
    return quantized.SerializeToString()  # type: ignore[no-any-return]


def nncf_on_openvino(model: bytes, samples: Sequence[Feeds]) -> tuple[bytes, bytes]:
    """NNCF's post-training quantization of OpenVINO's form of the model: structure and weights."""
    import nncf
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "model.onnx", Path(folder) / "made.xml"
        source.write_bytes(model)
        network = openvino.Core().read_model(source)
        dataset = nncf.Dataset(list(samples), dict)
        quantized = nncf.quantize(network, dataset, subset_size=len(samples))
        openvino.save_model(quantized, made, compress_to_fp16=False)
        return made.read_bytes(), made.with_suffix(".bin").read_bytes()


def quantized_by_peers(model: bytes, samples: Sequence[Feeds]) -> tuple[list[PeerModel], dict[str, str]]:
    """What the stock tools make, and why those that failed did."""
    made: list[PeerModel] = []
    failed: dict[str, str] = {}
    for method in ("MinMax", "Percentile", "Entropy"):
        for unsigned in (True, False):
            name = f"ORT {method} {'u8' if unsigned else 's8'}"
            _try(
                name,
                lambda m=method, u=unsigned: (onnxruntime_quantized(model, samples, method=m, unsigned=u),),
                ("onnxruntime", "openvino"),
                made,
                failed,
            )
    _try(
        "NNCF on ONNX",
        lambda: (nncf_on_onnx(model, samples),),
        ("onnxruntime", "openvino"),
        made,
        failed,
    )
    _try("NNCF on OpenVINO", lambda: nncf_on_openvino(model, samples), ("openvino",), made, failed)
    return made, failed


def _try(
    name: str,
    make: Callable[[], tuple[bytes, ...]],
    runtimes: Sequence[str],
    made: list[PeerModel],
    failed: dict[str, str],
) -> None:
    try:
        content = make()
    except Exception as error:  # noqa: BLE001 - a peer may raise anything, and the table says what
        failed[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        return
    made += [PeerModel(name, runtime, content) for runtime in runtimes]


def _open_onnxruntime(content: tuple[bytes, ...], threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content[0], options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


def _open_openvino(content: tuple[bytes, ...], threads: int) -> Run:
    import openvino

    core = openvino.Core()
    if len(content) == 1:
        with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
            file.write(content[0])
            file.flush()
            network = core.read_model(file.name)
    else:
        network = core.read_model(content[0], openvino.Tensor(np.frombuffer(content[1], np.uint8)))
    # On a processor with bfloat16 its default would compute what is float32 in 16 bits.
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(network, "CPU", settings)
    request = compiled.create_infer_request()
    names = [next(iter(output.get_names())) for output in compiled.outputs]

    def run(feeds: Feeds) -> dict[str, Array]:
        results = request.infer(dict(feeds), share_inputs=True)
        return {name: np.array(results[index]) for index, name in enumerate(names)}

    return run


def crash_of(model: PeerModel, feeds: Feeds) -> str:
    """Why a model does not load and run once, or ''. Asked in a child: vendors' libraries crash on some."""
    files = {f"{number}.bin": part for number, part in enumerate(model.content)}
    try:
        isolation.run(
            "compression_peers:_job",
            {"name": model.name, "runtime": model.runtime},
            arrays=dict(feeds),
            files=files,
            what=model.name,
            error=CompileError,
        )
    except (EdgekitError, InternalError) as error:
        return str(getattr(error, "message", error)).splitlines()[0]
    return ""


def _job(request: isolation.Request) -> tuple[None, dict[str, Array]]:
    content = tuple(request.files[f"{number}.bin"].read_bytes() for number in range(len(request.files)))
    PeerModel(request.arguments["name"], request.arguments["runtime"], content).open(1)(request.arrays)
    return None, {}

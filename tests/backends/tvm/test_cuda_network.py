"""Networks for a GPU: run on a processor that plays it, and packed with machine code of the boards' GPUs."""

from __future__ import annotations

import re
import shutil

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from backends.backend_models import parse, weights
from backends.tvm.cuda_tools import for_processor, run_library

from edgekit.backends.tvm.cuda import compiler, device
from edgekit.errors import CompileError, UnavailableError
from edgekit.hosts import flags
from edgekit.hosts.build import Platform

EM_CUDA, EM_AARCH64 = 190, 183


def volume() -> onnx.ModelProto:
    """A small U-Net of volumes: instance normalisation, strides, transposed convolution, joining, softmax."""
    text = """unet (float[1,1,8,12,8] x) => (float[1,3,8,12,8] y) {
        a0 = Conv <pads = [1,1,1,1,1,1]> (x, wa, ba)
        a1 = InstanceNormalization (a0, na, oa)
        a = PRelu (a1, slope)
        b0 = Conv <pads = [1,1,1,1,1,1], strides = [2,2,2]> (a, wb, bb)
        b1 = InstanceNormalization (b0, nb, ob)
        b2 = LeakyRelu <alpha = 0.1> (b1)
        b3 = Conv (b2, wc, bb)
        b4 = Add (b3, b2)
        b = Relu (b4)
        u = ConvTranspose <strides = [2,2,2]> (b, wu, ba)
        j = Concat <axis = 1> (u, a)
        d = Conv <pads = [1,1,1,1,1,1]> (j, wd)
        e = Sigmoid (d)
        l = Conv (e, wl, bl)
        y = Softmax <axis = 1> (l)
    }"""
    names = {"wa": (8, 1, 3, 3, 3), "wb": (16, 8, 3, 3, 3), "wc": (16, 16, 1, 1, 1), "wu": (16, 8, 2, 2, 2)}
    names |= {"wd": (8, 16, 3, 3, 3), "wl": (3, 8, 1, 1, 1), "slope": (8, 1, 1, 1)}
    names |= {"ba": (8,), "bb": (16,), "na": (8,), "oa": (8,), "nb": (16,), "ob": (16,), "bl": (3,)}
    return parse(text, **{name: weights(*shape, seed=i) for i, (name, shape) in enumerate(names.items())})


def plane() -> onnx.ModelProto:
    """Images: pooling, doubling by interpolation, depthwise convolution, clipping, a branch with two ends."""
    text = """net (float[2,3,16,24] x) => (float[2,2,16,24] y, float[2,5] z) {
        a0 = Conv <pads = [1,1,1,1]> (x, wa, ba)
        a1 = BatchNormalization (a0, ba, ba, ba, va)
        a = Clip (a1, low, high)
        p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (a)
        q = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (p)
        b0 = Conv <pads = [1,1,1,1], group = 16> (q, wb)
        b = Tanh (b0)
        u = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (b, , scales)
        s = Sub (u, a)
        m = Mul (s, scale)
        y = Conv <pads = [1,1,1,1]> (m, wc)
        g = GlobalAveragePool (b)
        f = Flatten (g)
        z = Gemm <transB = 1> (f, wg)
    }"""
    names = {"wa": (16, 3, 3, 3), "wb": (16, 1, 3, 3), "wc": (2, 16, 3, 3), "wg": (5, 16)}
    names |= {"ba": (16,), "scale": (16, 1, 1)}
    arrays = {name: weights(*shape, seed=i) for i, (name, shape) in enumerate(names.items())}
    arrays["va"] = np.linspace(0.5, 2, 16, dtype=np.float32)
    arrays["scales"] = np.array([1, 1, 2, 2], np.float32)
    arrays["low"], arrays["high"] = np.float32(0.0), np.float32(6.0)
    return parse(text, **arrays)


def groups() -> onnx.ModelProto:
    """Group normalisation as PyTorch writes it."""
    text = """net (float[1,2,6,6,6] x) => (float[1,4,6,6,6] y) {
        a = Conv <pads = [1,1,1,1,1,1]> (x, wa)
        r = Reshape (a, into)
        i = InstanceNormalization (r, ones, zeros)
        b = Reshape (i, back)
        c = Mul (b, scale)
        d = Add (c, offset)
        e = Relu (d)
        y = Conv (e, wb)
    }"""
    arrays = {"wa": weights(16, 2, 3, 3, 3), "wb": weights(4, 16, 1, 1, 1, seed=1)}
    arrays |= {"scale": weights(16, 1, 1, 1, seed=2), "offset": weights(16, 1, 1, 1, seed=3)}
    arrays |= {"ones": np.ones(4, np.float32), "zeros": np.zeros(4, np.float32)}
    arrays |= {"into": np.array([0, 4, -1], np.int64), "back": np.array([1, 16, 6, 6, 6], np.int64)}
    return parse(text, **arrays)


NETWORKS = {"volume": volume, "plane": plane, "groups": groups}
# Which kernels each is made of; and how many convolutions there are for tensor cores.
KERNELS = {
    "volume": {"convolution": 6, "normalised": 2, "join": 1, "softmax": 1},
    "plane": {"convolution": 2, "depthwise": 1, "pool": 2},
    "groups": {"convolution": 2, "normalised": 1},
}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request, tmp_path_factory):
    model = NETWORKS[request.param]()
    host = Platform.here()
    wanted = device.target("sm_87", host)
    lowered = compiler.lowered(ir.serde.deserialize_model(model), wanted)
    executable = device.compiled(lowered, wanted)
    path = tmp_path_factory.mktemp("network") / "model.so"
    device.write_library(executable, path, wanted, host, for_processor)
    return request.param, model, path, lowered, device.source(executable)


def test_a_network_gives_the_references_numbers(network, driver):
    _, model, path, _, _ = network
    feed = np.random.default_rng(0).standard_normal(
        [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    )
    feed = feed.astype("float32")
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": feed})
    [got] = run_library(driver, path, [("main", [feed])])
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == np.float32 and mine.shape == theirs.shape
        error = np.square(mine - theirs).mean()
        assert 10 * np.log10(np.square(theirs).mean() / error) > 50  # dB; half precision has 11 bits


def test_every_layer_is_a_kernel_of_ours(network):
    name, _, _, lowered, source = network
    called = re.findall(r"call_tir\((\w+?)\d*,", lowered["main"].script())
    assert {kernel: called.count(kernel) for kernel in KERNELS[name]} == KERNELS[name]
    assert not any("conv" in each and each != "convolution" for each in called)
    # Each convolution's kernel has its tensor cores.
    kernels = re.findall(r"void __launch_bounds__\(\d+\) (convolution\d*)_kernel\(.*?\n}", source, re.DOTALL)
    bodies = re.split(r'extern "C" __global__', source)
    products = [body for body in bodies if "ek_mma_float16(" in body and "_kernel(" in body and "{" in body]
    assert len(set(kernels)) == len(products) == len({c for c in kernels})
    # Conversions stand at the ends alone.
    assert sum("transpose" in each for each in called) <= 2 + (name == "plane")


def test_volumes_change_over_at_the_ends_alone(network):
    name, _, _, lowered, _ = network
    called = re.findall(r"call_tir\((\w+?),", lowered["main"].script())
    if name == "volume":
        assert [each for each in called if "transpose" in each or "reshape" in each] == [
            called[0],
            called[-1],
        ]


@pytest.mark.parametrize(
    ("arch", "machine"), [("sm_87", "aarch64"), ("sm_110", "aarch64"), ("sm_87", "x86_64")]
)
def test_a_library_carries_the_boards_machine_code(nvcc, tmp_path, arch, machine):
    host = Platform(machine) if machine != Platform.here().arch else Platform.here()
    path = tmp_path / "model.so"
    compiler.export(ir.serde.deserialize_model(volume()), path, arch, host)
    content = path.read_bytes()
    assert int.from_bytes(content[18:20], "little") == (EM_AARCH64 if machine == "aarch64" else 62)
    code = content.index(b"\x05\0\0\0\0\0\0\0cubin")  # TVM's name of the format, as its runtime reads it
    begin = content.index(b"\x7fELF", code)
    assert int.from_bytes(content[begin + 18 : begin + 20], "little") == EM_CUDA
    assert b"convolution_kernel" in content and b"__global__" not in content  # and no text


def test_weights_too_large_for_half_precision_are_refused():
    model = parse(
        "n (float[1,8,4,4] x) => (float[1,8,4,4] y) { y = Conv (x, w) }", w=weights(8, 8, 1, 1) * 1e6
    )
    with pytest.raises(CompileError, match="want at most 65504, got"):
        compiler.lowered(ir.serde.deserialize_model(model), device.target("sm_87", Platform.here()))


def test_lengths_that_vary_are_refused():
    model = parse("n (float[1,8,h,4] x) => (float[1,8,h,4] y) { y = Conv (x, w) }", w=weights(8, 8, 1, 1))
    with pytest.raises(CompileError, match="want fixed lengths"):
        compiler.lowered(ir.serde.deserialize_model(model), device.target("sm_87", Platform.here()))


@pytest.mark.parametrize("arch", ["sm_72", "sm_75", "compute_87", ""])
def test_gpus_without_these_tensor_cores_are_refused(arch):
    with pytest.raises(CompileError, match="want an architecture from sm_80 on") as caught:
        device.target(arch, Platform.here())
    assert "sm_87" in caught.value.hint


def test_a_missing_compiler_is_asked_for(monkeypatch):
    monkeypatch.setenv("CUDA_HOME", "/nowhere")
    assert flags.nvcc() is None
    with pytest.raises(UnavailableError, match="needs nvcc") as caught:
        device.assemble("", "sm_87")
    assert caught.value.hint


def test_what_nvcc_refuses_is_said(nvcc):
    assert shutil.which(nvcc)
    with pytest.raises(CompileError, match="nvcc fails for sm_87"):
        device.assemble("this is no CUDA", "sm_87")

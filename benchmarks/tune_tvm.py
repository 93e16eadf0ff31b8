"""Measure the tiles of TVM's kernels in bench_tvm.py's networks: the records that edgekit comes with.

    python benchmarks/tune_tvm.py --target cpu --seconds 60 --networks edsr unet3d
    python benchmarks/tune_tvm.py --target cpu --keep

The first form goes on with the user's records. ``--keep`` measures those in which the rule was beaten once
more, the winner and the rule alone, and writes those that win again into the package.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace

from edgekit import schema
from edgekit import target as targets
from edgekit.backends.tvm import convolution, matmul, measuring, tuned, tuning
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Layout, Tensor
from edgekit.backends.tvm.tuned import Record
from edgekit.errors import UsageError
from edgekit.target import Target


def tune(name: str, device: Target, seconds: float) -> str:
    import onnx_ir as ir
    from bench_tvm import take_in
    from tvm_networks import NETWORKS

    from edgekit.backends.tvm.compiler import imported

    network = NETWORKS[name]
    subject = take_in(name, network.build(), network.inputs(), device)
    module, _ = imported(ir.serde.deserialize_model(_proto(subject.graph.to_bytes())))
    return str(tuning.tune(module, Processor.of(device), seconds))


def _proto(model: bytes) -> object:
    import onnx

    return onnx.load_from_string(model)


def wins_again(record: Record, processor: Processor) -> bool:
    family = measuring.BENCHES[record.family]
    problem = schema.decode(family.problem, record.problem, error=UsageError, where=record.key)
    plan = schema.decode(family.plan, record.plan, error=UsageError, where=record.key)
    tensors = [Tensor(tuple(t["shape"]), t["dtype"], Layout(t["block"])) for t in record.tensors]
    if record.family == "convolution":
        halo = problem.halo(tensors[0].shape[2:], tensors[1].shape[2:])
        tensors[0] = replace(tensors[0], layout=replace(tensors[0].layout, halo=halo))
        rule = convolution.tiling(problem, *tensors, processor)
    else:
        rule = matmul.tiling(problem, *tensors, processor, record.family)
    what = measuring.Problem(record.family, problem, tuple(tensors))
    rule_s, time_s = measuring.Runner().measure(what, [rule, plan], processor)
    assert rule_s is not None and time_s is not None
    print(f"{time_s / rule_s:.3f} after {record.time_s / record.rule_s:.3f}: {record.key}", flush=True)
    return time_s <= tuning.GAIN * rule_s


def keep(device: Target) -> str:
    processor = Processor.of(device)
    name = processor.name
    records, notes = tuned.read(tuned.user_file(name))
    best = {record.key: record for record in records}
    won = [r for r in best.values() if r.time_s < r.rule_s and wins_again(r, processor)]
    path = tuned.SHIPPED / tuned.user_file(name).name
    path.unlink(missing_ok=True)
    for record in sorted(won, key=lambda record: record.key):
        tuned.append(path, record)
    return "\n".join([f"{path}: {len(won)} of {len(best)} problems", *notes])


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--target", default="cpu", metavar="NAME")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="for each network")
    parser.add_argument("--networks", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args(given)
    device = targets.find(options.target)
    for name in options.networks:
        print(f"{name}: {tune(name, device, options.seconds)}", flush=True)
    if options.keep:
        print(keep(device))
    return 0


if __name__ == "__main__":
    sys.exit(main())

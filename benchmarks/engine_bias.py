"""How far a case of ONNX Runtime is from bare calls of ONNX Runtime on the same file: what measuring adds.

    python benchmarks/engine_bias.py --model vheat-t --resolution 224 --rounds 200

In every round both take a tenth of a second, one step at least, in turns of the order A B, B A; the medians of their
readings give a ratio. The bare side is what anybody would write: a session with as many threads, ``session.run`` with a
dictionary of arrays.
``--spin`` leaves its threads spinning, ONNX Runtime's default.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from vheatbench.case import Case
from vheatbench.measure.stopping import Policy
from vheatbench.measure.timing import CpuTimer, Sampler
from vheatbench.run.step import place, prepare
from vheatbench.stats import median, median_interval
from vheatbench.subjects.catalog import build

TURN_S = 0.1
CPU = torch.device("cpu")


def bare_call(path: Path, x: torch.Tensor, spin: bool) -> Callable[[], Any]:
    """The file in a session of its own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x.numpy()}
    return lambda: session.run(None, feed)


def bare_turn(call: Callable[[], Any], seconds: float) -> float:
    """Median seconds of calls for so long, one at least."""
    times: list[float] = []
    began = time.perf_counter()
    while not times or time.perf_counter() - began < seconds:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vheat-t")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--spin", action="store_true")
    asked = parser.parse_args()
    case = Case(subject=asked.model, resolution=asked.resolution, batch=asked.batch, engine="onnxruntime")
    built = build(case)
    with tempfile.TemporaryDirectory() as folder:
        setup = prepare(place(built, case, CPU), built, asked.batch, case, CPU, Path(folder))
        (path,) = Path(folder).glob("*.onnx")
        call = bare_call(path, setup.inputs[0].clone(), asked.spin)
    sampler = Sampler(setup.step, CpuTimer(), Policy(warmup_ceiling_s=2))
    sampler.warm_up()
    bare_turn(call, 1.0)
    ratios, ours, theirs = [], [], []
    for i in range(asked.rounds):
        for side in (0, 1) if i % 2 else (1, 0):
            if side:
                theirs.append(bare_turn(call, TURN_S))
            else:
                ours.append(median(sampler.turn(TURN_S)))
        ratios.append(ours[-1] / theirs[-1])
    found = median_interval(ratios)
    print(
        f"{case.label}: {1e3 * median(ours):.3f} ms, bare {1e3 * median(theirs):.3f} ms, ratio {found.value:.4f} "
        f"({found.low:.4f} to {found.high:.4f}, {found.confidence:.0%}, {asked.rounds} rounds)"
    )


if __name__ == "__main__":
    main()

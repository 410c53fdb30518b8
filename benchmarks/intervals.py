"""How well the ratio of two models is known after the same time, by three ways: ``python benchmarks/intervals.py``.

- turns: ``vheatbench run --budget``, rounds of live processes that take turns;
- as timm's ``benchmark.py`` does it: a process per model that imports, builds, makes 10 steps to warm up and times 40,
  of which it gives the mean. It gives no interval; here it is called for both models again and again, and the interval
  is that of the pairs;
- as pyperf does it: 20 processes per model (as many as the time allows), each with one value of warmed-up steps, all of
  one model first, and the interval of the difference between two samples.

The ways are carried out one after the other, ``--repeats`` times, because the machine drifts. The goal is half of the
interval of the second way in half of its time.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from vheatbench.analysis.group_ratios import ratios_of
from vheatbench.analysis.signed_rank import signed_rank_interval
from vheatbench.run.process import calm_threads
from vheatbench.stats import median
from vheatbench.store.read import read_run
from vheatbench.verdict.rule import gate_unpaired

FOCUS, OTHER = "vheat-t", "swin-t"
TIMM = {"vheat-t": "vheat_tiny", "swin-t": "swin_tiny_patch4_window7_224"}


def main() -> None:
    """Measure each way in its time, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="time of each way; turns also take half of it")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    wanted = parser.parse_args()
    ways: dict[str, tuple[Callable[[float, int], tuple[float, float]], float]] = {
        "turns, half the time": (in_turns, wanted.seconds / 2),
        "turns": (in_turns, wanted.seconds),
        "as timm's benchmark.py": (like_timm, wanted.seconds),
        "as pyperf": (like_pyperf, wanted.seconds),
    }
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
    for repeat in range(wanted.repeats):
        for name, (way, seconds) in ways.items():
            begun = time.monotonic()
            ratio, half_width = way(seconds, wanted.size)
            found[name].append((ratio, half_width, time.monotonic() - begun))
            print(f"repeat {repeat + 1}, {name}: {ratio:.3f} ±{half_width:.1%}", file=sys.stderr)
    text = table(found, wanted.size)
    print(text)
    if wanted.out is not None:
        wanted.out.write_text(text + "\n")


def in_turns(seconds: float, size: int) -> tuple[float, float]:
    """Ratio and half of its 95 % interval, by ``vheatbench run``."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "vheatbench", "run", "-q", "--suite", "resolution-scaling", "--model",
            f"{FOCUS},{OTHER}", "--resolution", str(size), "--budget", f"{seconds:.0f}", "--out", folder,
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        (path,) = Path(folder).glob("*.jsonl")
        (found,) = ratios_of(read_run(path).records).values()
    return found.paired.ratio.value, found.paired.half_width


def like_timm(seconds: float, size: int) -> tuple[float, float]:
    """The same from pairs of calls as timm's script makes them, the order changing."""
    end, ratios, longest = time.monotonic() + seconds, [], 0.0
    while time.monotonic() + longest < end:
        begun = time.monotonic()
        names = (FOCUS, OTHER) if len(ratios) % 2 else (OTHER, FOCUS)
        means = {name: steps(name, size, 10, 40) for name in names}
        ratios.append(math.log(means[OTHER] / means[FOCUS]))
        longest = max(longest, time.monotonic() - begun)
    low, high = signed_rank_interval(ratios, 0.95)
    return math.exp(median(ratios)), (high - low) / 2


def like_pyperf(seconds: float, size: int) -> tuple[float, float]:
    """The same from processes in two blocks."""
    sides: dict[str, list[float]] = {}
    for name in (FOCUS, OTHER):
        end, values, longest = time.monotonic() + seconds / 2, [], 0.0
        while len(values) < 20 and time.monotonic() + longest < end:
            begun = time.monotonic()
            values.append(math.log(steps(name, size, 1, 3)))
            longest = max(longest, time.monotonic() - begun)
        sides[name] = values
    found = gate_unpaired(sides[FOCUS], sides[OTHER], 0.05, 0.95, None)
    return math.exp(found.estimate), (found.high - found.low) / 2


def steps(name: str, size: int, warm_up: int, count: int) -> float:
    """The mean seconds of a step in a process of its own."""
    code = (
        "import time, torch, timm, vheatbench.subjects.vheat\n"
        f"model = timm.create_model({TIMM[name]!r}, img_size={size}).eval()\n"
        "if hasattr(model, 'deploy'): model.deploy()\n"
        f"x = torch.randn(1, 3, {size}, {size})\n"
        "with torch.inference_mode():\n"
        f"    for _ in range({warm_up}): model(x)\n"
        "    begun = time.perf_counter()\n"
        f"    for _ in range({count}): model(x)\n"
        f"print((time.perf_counter() - begun) / {count})"
    )
    environment = {**os.environ, **calm_threads()}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    return float(json.loads(done.stdout.splitlines()[-1]))


def table(found: dict[str, list[tuple[float, float, float]]], size: int) -> str:
    """Medians over the repeats, and the range of the ratios, as markdown."""
    count = len(next(iter(found.values())))
    lines = [
        f"Time of {OTHER} over that of {FOCUS} at {size}; medians of the repeats, of which there are {count}.",
        "",
        "| way | seconds | half of the 95 % interval | ratio (range of the repeats) |",
        "|---|---|---|---|",
    ]
    for name, values in found.items():
        ratios, widths, seconds = zip(*values, strict=True)
        known = [width for width in widths if math.isfinite(width)]
        width = f"±{median(known):.1%}" if len(known) == len(widths) else "none: too few pairs"
        span = f"{median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
        lines.append(f"| {name} | {median(seconds):.0f} | {width} | {span} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

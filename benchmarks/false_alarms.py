"""How often the gate cries wolf on this machine, and what it catches: ``python benchmarks/false_alarms.py``.

A burst is a fresh process that times the heat operator: once as it is, once computing 10 % more (11 calls for 10),
once 20 % more. A round is four bursts in random order: two of the operator as it is, one of each slower one. Rounds are
kept in a pool, and comparisons are drawn from it: as many consecutive rounds as a comparison has, from a random start,
base and head in ABBA order. Comparisons thus share bursts, which hundreds of independent ones would take days for;
their rates are as good as the pool is long.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

from vheatbench.stats import median, quantile
from vheatbench.verdict.rule import Verdict, gate
from vheatbench.verdict.settings import QUANTILES, Location

CALLS = {"same": 10, "again": 10, "+10 %": 11, "+20 %": 12}
"""Calls of the operator per sample, by what a burst is for."""
VERDICTS: tuple[Verdict, ...] = ("regressed", "suspect", "same", "inconclusive", "improved")
RULES: tuple[tuple[int, Location], ...] = ((10, "p25"), (10, "min"), (20, "p25"), (20, "min"), (30, "p25"), (30, "min"))
Round = dict[str, list[float]]
"""Samples in seconds of each burst of a round, in the order they were taken."""


def main() -> None:
    """Measure the rounds that the pool lacks, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60, help="rounds of four bursts in the pool")
    parser.add_argument("--samples", type=int, default=200, help="samples of a burst")
    parser.add_argument("--grid", type=int, default=28, help="side of the operator's token grid")
    parser.add_argument("--comparisons", type=int, default=300, help="comparisons of each kind")
    parser.add_argument("--pool", type=Path, default=Path("false-alarms.json"), help="bursts measured so far")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    parser.add_argument("--burst", type=int, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.burst is not None:
        print(json.dumps(burst(wanted.burst, wanted.samples, wanted.grid)))
        return
    pool = fill(wanted.pool, wanted.rounds, wanted.samples, wanted.grid)
    text = table(pool, wanted.comparisons)
    print(text)
    if wanted.out is not None:
        wanted.out.write_text(text + "\n")


def burst(calls: int, samples: int, grid: int) -> list[float]:
    """Seconds of each sample in this process, after three more that warm it up."""
    import torch

    from vheatbench.case import Case
    from vheatbench.subjects.catalog import build

    case = Case(subject="op/heat", resolution=grid, part="layer", mode="infer")
    operator = build(case).model.eval()
    x = torch.randn(1, grid, grid, case.channels or 96)
    taken = []
    with torch.inference_mode():
        for _ in range(samples + 3):
            started = time.perf_counter()
            for _ in range(calls):
                operator(x)
            taken.append(time.perf_counter() - started)
    return taken[3:]


def fill(path: Path, rounds: int, samples: int, grid: int) -> list[Round]:
    """The pool in ``path``, measured up to ``rounds``; every round is kept as soon as it is there."""
    pool: list[Round] = json.loads(path.read_text()) if path.exists() else []
    while len(pool) < rounds:
        names = list(CALLS)
        random.Random(len(pool)).shuffle(names)
        pool.append({name: _fresh(CALLS[name], samples, grid) for name in names})
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(pool))
        unfinished.replace(path)
        print(f"round {len(pool)} of {rounds}", file=sys.stderr)
    return pool


def _fresh(calls: int, samples: int, grid: int) -> list[float]:
    command = [sys.executable, __file__, "--burst", str(calls), "--samples", str(samples), "--grid", str(grid)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: list[float] = json.loads(done.stdout)
    return found


def comparison(pool: Sequence[Round], head: str, rounds: int, location: Location, seed: int) -> list[float]:
    """Log ratios of consecutive rounds from a random start; ``again`` as head compares identical code.

    Of two rounds, one has the earlier of the two identical bursts as base and the other the later (ABBA or BAAB).
    """
    chance = random.Random(seed)
    start = chance.randrange(len(pool) - rounds + 1)
    found = []
    turned = False
    for i, entry in enumerate(pool[start : start + rounds]):
        turned = not turned if i % 2 else chance.random() < 0.5
        twins = [name for name in entry if name in ("same", "again")]
        base, other = reversed(twins) if turned else twins
        values = (entry[base], entry[other if head == "again" else head])
        before, after = (quantile(samples, QUANTILES[location]) for samples in values)
        found.append(log(after / before))
    return found


def blocks(pool: Sequence[Round], rounds: int, location: Location, seed: int) -> list[float]:
    """The same of identical code with all of the base first: what is never allowed to fail anybody."""
    start = random.Random(seed).randrange(len(pool) - 2 * rounds + 1)
    values = [quantile(entry["same"], QUANTILES[location]) for entry in pool[start : start + 2 * rounds]]
    return [log(after / before) for before, after in zip(values[:rounds], values[rounds:], strict=True)]


def table(pool: Sequence[Round], comparisons: int) -> str:
    """Shares of verdicts by rule and by what was compared, as markdown."""
    lines = [
        f"{len(pool)} rounds of 4 bursts, {comparisons} comparisons of each kind drawn from them (they share bursts); "
        "margin 5 %, 99 % intervals.",
        "",
        f"| rounds | location | order | head | noise | {' | '.join(VERDICTS)} |",
        "|" + "---|" * (5 + len(VERDICTS)),
    ]
    for rounds, location in RULES:
        if rounds > len(pool):
            continue
        for head in ("again", "+10 %", "+20 %"):
            drawn = [comparison(pool, head, rounds, location, seed) for seed in range(comparisons)]
            named = "identical" if head == "again" else f"computes {head.strip('+')} more"
            lines.append(_row(rounds, location, "ABBA", named, drawn))
        if 2 * rounds <= len(pool):
            drawn = [blocks(pool, rounds, location, seed) for seed in range(comparisons)]
            lines.append(_row(rounds, location, "blocks (refused)", "identical", drawn))
    return "\n".join(lines)


def _row(rounds: int, location: str, order: str, head: str, drawn: Sequence[Sequence[float]]) -> str:
    verdicts: Counter[Any] = Counter(gate(ratios).verdict for ratios in drawn)
    # half the middle half of the log ratios about their centre, as a standard deviation would be of normal ones
    noise = median([quantile(r, 0.75) - quantile(r, 0.25) for r in drawn]) / 1.349
    shares = [f"{100 * verdicts[verdict] / len(drawn):.3g} %" for verdict in VERDICTS]
    return f"| {rounds} | {location} | {order} | {head} | {100 * noise:.2g} % | {' | '.join(shares)} |"


if __name__ == "__main__":
    main()

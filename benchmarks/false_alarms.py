"""How often the gate cries wolf on this machine, and what it catches: ``python benchmarks/false_alarms.py``.

What is compared computes the heat operator as it is, once more as it is, and 5, 10 and 20 % more often. A round is one
fresh process of each, which take turns, and then one burst of each in random order, one after the other: today's and
yesterday's way of measuring, in the same minutes. ``--neighbour`` starts another program beside it that keeps one core
busy for some seconds out of ten. ``--forked`` forks the processes of turns instead of starting them anew.

Rounds are kept in a pool, and comparisons are drawn from it: any rounds in any order, those of identical code with
either side as base. Comparisons thus share rounds, which hundreds of independent ones would take days for; their rates
are as good as the pool is long.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vheatbench.analysis.paired_ratio import round_log_ratio
from vheatbench.analysis.signed_rank import signed_rank_interval
from vheatbench.case import Case
from vheatbench.run.executor import Executor, Seat
from vheatbench.stats import median, quantile
from vheatbench.store.schema import Record
from vheatbench.suites import SuitePolicy
from vheatbench.verdict.rule import Verdict, gate
from vheatbench.verdict.settings import QUANTILES, Location

HEADS = {"again": "identical", "more_5": "5 % more", "more_10": "10 % more", "more_20": "20 % more"}
"""What is compared with ``as_it_is``."""
SUBJECTS = ("as_it_is", *HEADS)
VERDICTS: tuple[Verdict, ...] = ("regressed", "suspect", "same", "inconclusive", "improved")
RULES = ((10, 0.05), (10, 0.02), (20, 0.05), (20, 0.02))
"""Rounds and margin of the comparisons."""
LOCATION: Location = "p25"
"""What stands for a burst."""
Round = dict[str, Any]
"""Log ratios to ``as_it_is`` by way of measuring and head, and the seconds that each way took."""


def main() -> None:
    """Measure the rounds that the pool lacks, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="rounds in the pool")
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds of sampling of each process")
    parser.add_argument("--comparisons", type=int, default=300, help="comparisons of each kind")
    parser.add_argument("--neighbour", action="store_true", help="keep one core busy for seconds now and then")
    parser.add_argument("--forked", action="store_true", help="fork the processes instead of starting them")
    parser.add_argument("--no-bursts", action="store_true", help="turns only")
    parser.add_argument("--pool", type=Path, default=Path("false-alarms.json"), help="rounds measured so far")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    wanted = parser.parse_args()
    pool: list[Round] = json.loads(wanted.pool.read_text()) if wanted.pool.exists() else []
    with neighbour() if wanted.neighbour else contextlib.nullcontext():
        while len(pool) < wanted.rounds:
            pool.append(a_round(len(pool), wanted.seconds, wanted.forked, not wanted.no_bursts))
            unfinished = wanted.pool.with_suffix(".unfinished")
            unfinished.write_text(json.dumps(pool))
            unfinished.replace(wanted.pool)
            print(f"round {len(pool)} of {wanted.rounds}", file=sys.stderr)
    text = table(pool, wanted.comparisons)
    print(text)
    if wanted.out is not None:
        wanted.out.write_text(text + "\n")


def a_round(number: int, seconds: float, forked: bool, bursts: bool) -> Round:
    """One fresh process of each subject in turns, then a burst of each."""
    policy = SuitePolicy(
        ceiling_s=seconds, warmup_ceiling_s=0.5, min_samples=8, relative_precision=1e-6, max_samples=10**6
    )
    names = random.Random(number).sample(SUBJECTS, len(SUBJECTS))
    seats = [Seat(Case(subject=f"benchmarks.slower:{name}", resolution=32), number, count=False) for name in names]
    found: Round = {}
    for way, turns in (("turns", True), ("bursts", False)) if bursts else (("turns", True),):
        begun = time.monotonic()
        records = Executor(policy, "cpu", fresh=not forked, turns=turns).measure_group(seats, str(number))
        taken = dict(zip(names, records, strict=True))
        ratios = {head: log_ratio(taken["as_it_is"], taken[head], turns) for head in HEADS}
        found[way] = {**ratios, "seconds": time.monotonic() - begun}
    return found


def log_ratio(base: Record, head: Record, turns: bool) -> float:
    """Of one round, as the gate takes it. Raises RuntimeError where a side could not be measured."""
    if base.status != "ok" or head.status != "ok":
        raise RuntimeError(next(record.reason for record in (base, head) if record.status != "ok"))
    if turns:
        ratio = round_log_ratio(base, head)
        assert ratio is not None
        return ratio
    before, after = (quantile(record.samples["latency_s"].values, QUANTILES[LOCATION]) for record in (base, head))
    return math.log(after / before)


@contextlib.contextmanager
def neighbour() -> Iterator[None]:
    """Another program that keeps one core busy for 1 to 4 s, and rests for 2 to 8 s, until the block is left."""
    code = (
        "import random, time\n"
        "while True:\n"
        "    end = time.monotonic() + random.uniform(1, 4)\n"
        "    while time.monotonic() < end: pass\n"
        "    time.sleep(random.uniform(2, 8))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def drawn(pool: Sequence[Round], way: str, head: str, rounds: int, seed: int) -> list[float]:
    """The log ratios of one comparison; identical code changes its names at random."""
    chance = random.Random(f"{way} {head} {rounds} {seed}")
    ratios = [entry[way][head] for entry in chance.sample(list(pool), rounds)]
    return [ratio * chance.choice((-1, 1)) for ratio in ratios] if head == "again" else ratios


def table(pool: Sequence[Round], comparisons: int) -> str:
    """Noise of a round, then shares of verdicts by way, rounds, margin and head, as markdown."""
    ways = [way for way in ("turns", "bursts") if way in pool[0]]
    lines = [
        f"{len(pool)} rounds, {comparisons} comparisons of each kind drawn from them; 99 % intervals.",
        "",
        "| way | seconds of a round | noise of its ratio | half-width of 10 rounds | of equal time |",
        "|---|---|---|---|---|",
    ]
    quickest = min(median([entry[way]["seconds"] for entry in pool]) for way in ways)
    for way in ways:
        seconds = median([entry[way]["seconds"] for entry in pool])
        ratios = [entry[way]["again"] for entry in pool]
        noise = (quantile(ratios, 0.75) - quantile(ratios, 0.25)) / 1.349
        widths = [half_width(drawn(pool, way, "again", 10, seed)) for seed in range(comparisons)]
        alike = median(widths) * math.sqrt(seconds / quickest)
        lines.append(f"| {way} | {seconds:.1f} | {noise:.1%} | ±{median(widths):.1%} | ±{alike:.1%} |")
    lines += ["", f"| way | rounds | margin | head | {' | '.join(VERDICTS)} |", "|" + "---|" * (4 + len(VERDICTS))]
    for way in ways:
        for rounds, margin in RULES:
            if rounds > len(pool):
                continue
            for head, named in HEADS.items():
                verdicts: Counter[str] = Counter(
                    gate(drawn(pool, way, head, rounds, seed), margin).verdict for seed in range(comparisons)
                )
                shares = " | ".join(f"{100 * verdicts[verdict] / comparisons:.3g} %" for verdict in VERDICTS)
                lines.append(f"| {way} | {rounds} | {margin:.0%} | {named} | {shares} |")
    return "\n".join(lines)


def half_width(ratios: Sequence[float]) -> float:
    """Half the 95 % interval of the ratio."""
    low, high = signed_rank_interval(ratios, 0.95)
    return (high - low) / 2


if __name__ == "__main__":
    main()

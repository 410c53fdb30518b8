"""How often the gate cries wolf on this machine, and what it catches: ``python benchmarks/false_alarms.py``.

What is compared computes the heat operator as it is, once more as it is, and 5, 10 and 20 % more often. A round is one
fresh process of each, which take turns, and in every second round a burst of some of them in random order, one after
the other: both ways of measuring, in the same minutes. ``--neighbour`` starts another program beside it that keeps one
core busy for some seconds out of ten. ``--forked`` forks the processes of turns instead of starting them anew.

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
BURSTS = ("as_it_is", "again", "more_10")
"""What has a burst too."""
VERDICTS: tuple[Verdict, ...] = ("regressed", "suspect", "same", "inconclusive", "improved")
RULES = ((10, 0.05), (10, 0.02), (20, 0.05), (20, 0.02))
"""Rounds and margin of the comparisons."""
LOCATION: Location = "p25"
"""What stands for a burst."""
Round = dict[str, Any]
"""Log ratios to ``as_it_is`` by way of measuring and head, and the seconds that each way took for one process."""


def main() -> None:
    """Measure the rounds that the pool lacks, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40, help="rounds in the pool")
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds of sampling of each process")
    parser.add_argument("--comparisons", type=int, default=300, help="comparisons of each kind")
    parser.add_argument("--neighbour", action="store_true", help="keep one core busy for seconds now and then")
    parser.add_argument("--forked", action="store_true", help="fork the processes instead of starting them")
    parser.add_argument("--bursts-every", type=int, default=2, help="bursts too in every so-manieth round")
    parser.add_argument("--pool", type=Path, default=Path("false-alarms.json"), help="rounds measured so far")
    parser.add_argument("--out", type=Path, help="also write the table to this file")
    wanted = parser.parse_args()
    pool: list[Round] = json.loads(wanted.pool.read_text()) if wanted.pool.exists() else []
    with neighbour() if wanted.neighbour else contextlib.nullcontext():
        while len(pool) < wanted.rounds:
            bursts = wanted.bursts_every > 0 and len(pool) % wanted.bursts_every == 0
            pool.append(a_round(len(pool), wanted.seconds, wanted.forked, bursts))
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
    found: Round = {}
    for way in ("turns", "bursts") if bursts else ("turns",):
        subjects = SUBJECTS if way == "turns" else BURSTS
        names = random.Random(number).sample(subjects, len(subjects))
        seats = [Seat(Case(subject=f"benchmarks.slower:{name}", resolution=32), number, count=False) for name in names]
        begun = time.monotonic()
        executor = Executor(policy, "cpu", fresh=not forked, turns=way == "turns")
        taken = dict(zip(names, executor.measure_group(seats, str(number)), strict=True))
        seconds = (time.monotonic() - begun) / len(names)
        heads = [head for head in names if head != "as_it_is"]
        found[way] = {head: log_ratio(taken["as_it_is"], taken[head], way == "turns") for head in heads}
        found[way]["seconds"] = seconds
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


def drawn(ratios: Sequence[float], head: str, rounds: int, seed: int) -> list[float]:
    """The log ratios of one comparison; identical code changes its names at random."""
    chance = random.Random(f"{head} {rounds} {seed}")
    chosen = chance.sample(list(ratios), rounds)
    return [ratio * chance.choice((-1, 1)) for ratio in chosen] if head == "again" else chosen


def table(pool: Sequence[Round], comparisons: int) -> str:
    """Noise of a round, then shares of verdicts by way, rounds, margin and head, as markdown."""
    measured = {way: [entry[way] for entry in pool if way in entry] for way in ("turns", "bursts")}
    measured = {way: entries for way, entries in measured.items() if len(entries) >= 10}
    seconds = {way: median([entry["seconds"] for entry in entries]) for way, entries in measured.items()}
    lines = [
        f"{len(pool)} rounds, {comparisons} comparisons of each kind drawn from them; 99 % intervals.",
        "",
        "| way | rounds | seconds of a side | noise of a round | half-width of 10 rounds | in equal time |",
        "|---|---|---|---|---|---|",
    ]
    for way, entries in measured.items():
        ratios = [entry["again"] for entry in entries]
        noise = (quantile(ratios, 0.75) - quantile(ratios, 0.25)) / 1.349
        width = median([half_width(drawn(ratios, "again", 10, seed)) for seed in range(comparisons)])
        alike = width * math.sqrt(seconds[way] / min(seconds.values()))
        lines.append(f"| {way} | {len(entries)} | {seconds[way]:.1f} | {noise:.1%} | ±{width:.1%} | ±{alike:.1%} |")
    lines += ["", f"| way | rounds | margin | head | {' | '.join(VERDICTS)} |", "|" + "---|" * (4 + len(VERDICTS))]
    for way, entries in measured.items():
        for rounds, margin in RULES:
            for head, named in HEADS.items():
                ratios = [entry[head] for entry in entries if head in entry]
                if len(ratios) < rounds:
                    continue
                found = Counter(gate(drawn(ratios, head, rounds, seed), margin).verdict for seed in range(comparisons))
                shares = " | ".join(f"{100 * found[verdict] / comparisons:.3g} %" for verdict in VERDICTS)
                lines.append(f"| {way} | {rounds} | {margin:.0%} | {named} | {shares} |")
    return "\n".join(lines)


def half_width(ratios: Sequence[float]) -> float:
    """Half the 95 % interval of the ratio."""
    low, high = signed_rank_interval(ratios, 0.95)
    return (high - low) / 2


if __name__ == "__main__":
    main()

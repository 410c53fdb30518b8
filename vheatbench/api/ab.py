"""``vb.ab``: two models in turns, and the ratio of their times."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from vheatbench.analysis.paired_ratio import Paired, paired_ratio
from vheatbench.api.case import Device, case_of
from vheatbench.api.inputs import Inputs, Shape, inputs_of
from vheatbench.api.policy import policy_of
from vheatbench.case import Case, Compile, DType, TimedMode
from vheatbench.errors import UserError
from vheatbench.metrics import info_of
from vheatbench.numbers import with_interval
from vheatbench.stats import Interval
from vheatbench.store.schema import Record
from vheatbench.suites import SuitePolicy

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vheatbench.measure.stopping import StoppingRule
    from vheatbench.measure.timing import Sampler

HERE = "one process: the interval comes from the turns and knows nothing of the spread between processes"


@dataclass(frozen=True)
class AbResult:
    """Two models that took turns."""

    a: tuple[Record, ...]
    """Of each round of ``a``."""
    b: tuple[Record, ...]
    """Of each round of ``b``; the i-th took turns with the i-th of ``a``."""
    paired: Paired | None
    """Log ratio of the times, and of how many rounds; None where no round was measured on both sides."""
    note: str = ""
    """What is to be known of the interval."""

    @property
    def ratio(self) -> Interval:
        """Time of ``b`` over that of ``a``: value, low, high, confidence. Raises UserError where there is none."""
        if self.paired is None:
            failed = [record for record in (*self.a, *self.b) if record.status != "ok"]
            reason = f"{failed[0].case.label}: {failed[0].reason}" if failed else "they did not fit side by side"
            raise UserError(f"there is no ratio: {reason}")
        return self.paired.ratio

    @property
    def faster(self) -> str | None:
        """``a`` or ``b``, where the whole interval says so; else None."""
        ratio = self.ratio
        return "a" if ratio.low > 1 else "b" if ratio.high < 1 else None

    def __str__(self) -> str:
        a, b = self.a[0].case.subject, self.b[0].case.subject
        if self.paired is None:
            return f"{b} against {a}: no ratio"
        ratio, rounds = self.ratio, self.paired.rounds
        words = with_interval(ratio, info_of("ratio"))
        turns = sum(len(samples.turns) for record in self.a if (samples := record.samples.get("latency_s")))
        count = f"{turns} turns in {rounds} round{'s' * (rounds != 1)}"
        decided = {"a": f"{a} is faster", "b": f"{b} is faster", None: "neither is shown to be faster"}[self.faster]
        return f"{b} takes {words} times the time of {a}, {ratio.confidence:.0%} interval from {count}: {decided}" + (
            f" ({self.note})" if self.note else ""
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from vheatbench.report.notebook import record_html

        return f"<p><strong>{escape(str(self))}</strong></p>{record_html(self.a[0])}{record_html(self.b[0])}"


def ab(
    a: str | nn.Module,
    b: str | nn.Module,
    inputs: Shape | Tensor = (1, 3, 224, 224),
    *,
    mode: TimedMode = "infer",
    dtype: DType | None = None,
    device: Device = "auto",
    compile: Compile = False,
    options: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None] = (None, None),
    names: tuple[str, str] | None = None,
    rounds: int | None = None,
    seconds: float | None = None,
    threads: int | None = None,
    seed: int = 0,
) -> AbResult:
    """Is ``b`` faster than ``a``? Both are warm and sample in turns, so that what the machine does to both cancels.

    Two names are measured in processes of their own, ``rounds`` times anew. Where one is a live module, both take turns
    in this process, once: its ratio has an interval from its turns, which knows nothing of the spread between
    processes (``note`` says so). Modules are put back as they were, as by :func:`vheatbench.measure`.

    Args:
        a: a name or a live module: what ``b`` is compared with.
        b: the other.
        inputs: (batch, channels, height, width), or for live modules the tensor itself; the same for both.
        mode: as in :func:`vheatbench.measure`, like the next three.
        dtype: of live modules by default their own.
        device: of both.
        compile: ``torch.compile``.
        options: of names: arguments of the two constructors.
        names: what live modules are called; by default as their classes.
        rounds: of names, each in two fresh processes (6, the fewest that give a 95 % interval between processes).
        seconds: of sampling in a round, of each side, at most (3).
        threads: of a CPU; by default torch's.
        seed: of the order.

    Returns:
        ``result.ratio`` is the time of ``b`` over that of ``a`` with its interval; ``print`` says it in a sentence.

    Raises:
        UserError: an unknown name, a size that cannot be, or a value that is not allowed.
    """
    asked = inputs_of(inputs)
    policy = policy_of(ceiling_s=3.0 if seconds is None else seconds, threads=threads, rounds=rounds, seed=seed)
    cases = []
    for place, model in enumerate((a, b)):
        name = names[place] if names is not None else _name(a, b, place)
        given = dict(options[place] or {}) if isinstance(model, str) else None
        cases.append(case_of(model, asked, device, name, mode=mode, dtype=dtype, compile=compile, options=given))
    if asked.batch == "largest":
        raise UserError("both sides take the same inputs: give a batch")
    if isinstance(a, str) and isinstance(b, str):
        return _of_names(cases[0], cases[1], policy, 6 if rounds is None else rounds)
    if rounds not in (None, 1):
        raise UserError("a live module cannot be measured in fresh processes: leave rounds out")
    return _here((a, b), asked, (cases[0], cases[1]), policy)


def _name(a: object, b: object, place: int) -> str:
    """Of a live module; two of one class are told apart."""
    kinds = [type(model).__name__ for model in (a, b)]
    return kinds[place] if kinds[0] != kinds[1] else f"{kinds[place]} {'ab'[place]}"


def _of_names(a: Case, b: Case, policy: SuitePolicy, rounds: int) -> AbResult:
    from vheatbench.run.executor import Executor, Seat

    if a.id == b.id:
        raise UserError(f"{a.label} is on both sides: `vheatbench ab --aa` measures this machine's noise")
    executor = Executor(policy, "cuda:0" if a.device == "cuda" else "cpu", fresh=True)
    found: tuple[list[Record], list[Record]] = ([], [])
    for number in range(rounds):
        seats = [Seat(case, number, count=number == 0, memory=number == 0) for case in (a, b)]
        records = executor.measure_group(seats, f"{policy.seed} {a.point} {number}")
        for side, record in zip(found, records, strict=True):
            if record.status == "skipped":
                raise UserError(record.reason)
            side.append(record)
        if any(record.status != "ok" for record in records):
            break
    return AbResult(tuple(found[0]), tuple(found[1]), paired_ratio(*found))


@dataclass
class _Side:
    """A model that takes turns in this process."""

    record: Record
    sampler: Sampler
    rule: StoppingRule
    sampling_s: float = 0.0

    def turn(self, seconds: float) -> None:
        """Sample for so long."""
        started = time.monotonic()
        for sample in self.sampler.turn(seconds):
            self.rule.add(sample)
        self.sampling_s += time.monotonic() - started


def _here(
    models: tuple[str | nn.Module, str | nn.Module], inputs: Inputs, cases: tuple[Case, Case], policy: SuitePolicy
) -> AbResult:
    from vheatbench.api.live import builder_of, memory_limit_gib, untouched
    from vheatbench.run.device import prepared_device
    from vheatbench.subjects.catalog import build

    live = [model for model in models if not isinstance(model, str)]
    policy = policy.model_copy(update={"memory_limit_gib": memory_limit_gib()})
    with untouched(*live, weights=cases[0].mode == "train"), prepared_device(cases[0], policy) as device:
        sides = []
        for model, case in zip(models, cases, strict=True):
            if not isinstance(model, str):
                model.train(case.trains)
            builder = build if isinstance(model, str) else builder_of(model, inputs)
            sides.append(_ready(builder(case, "cpu"), case, device, policy))
        _take_turns(sides, cases[0], policy, device)
    a, b = (side.record for side in sides)
    return AbResult((a,), (b,), paired_ratio([a], [b]), HERE)


def _ready(built: Any, case: Case, device: Any, policy: SuitePolicy) -> _Side:
    """A side whose first step has shown that it can be measured. What the model raises is left to the caller."""
    from vheatbench.engines import check_engine
    from vheatbench.measure.outputs import check_finite
    from vheatbench.measure.stopping import StoppingRule
    from vheatbench.measure.timing import Sampler, timer_for
    from vheatbench.run.step import place, prepare
    from vheatbench.text import utc_now

    check_engine(case)
    record = Record(case=case, case_id=case.id, status="ok", started=utc_now())
    assert isinstance(case.batch, int)
    setup = prepare(place(built, case, device), built, case.batch, case, device)
    record.subject = {**built.facts, "precision": setup.precision}
    record.warnings += [*built.warnings, *setup.notes]
    check_finite(setup.step(), f" in {setup.precision}")
    return _Side(record, Sampler(setup.step, timer_for(device), policy), StoppingRule(policy))


def _take_turns(sides: list[_Side], case: Case, policy: SuitePolicy, device: Any) -> None:
    """By the rules that workers take turns by (:mod:`vheatbench.run.turns`); the records get what is found."""
    from vheatbench.measure.timing import timing_metrics, uncollected
    from vheatbench.measure.watch import DeviceWatch
    from vheatbench.run.turns import TURNS, enough, orders_of

    orders = orders_of(len(sides), f"{policy.seed} {case.point} 0")
    for place in next(orders):
        sides[place].sampler.warm_up()
    watch = DeviceWatch(case.device, 0, companions=0)
    watch.start()
    number = 0
    with uncollected():
        while not enough(sides, number, policy, all(side.rule.finished(side.sampling_s) for side in sides)):
            for place in next(orders):
                sides[place].turn(policy.ceiling_s / TURNS)
                watch.tick()
            number += 1
    conditions, session = watch.stop(), secrets.token_hex(6)
    for side in sides:
        timing, record = side.sampler.timing, side.record
        timing.stopped_by = side.rule.finished(side.sampling_s) or "ceiling"
        metrics, samples, warnings = timing_metrics(timing, int(record.case.batch))
        record.metrics |= metrics
        record.samples |= samples
        record.conditions |= conditions
        record.warnings += [*warnings, *watch.warnings]
        record.session = session
        record.elapsed_s = math.fsum((side.sampling_s, *timing.warmup_s))

"""Carrying one case out, inside a worker process: build the subject, measure it, make the record."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from vheatbench.case import Case
from vheatbench.engines import check_engine, check_present
from vheatbench.engines.agreement import AgreementError, disagreement
from vheatbench.measure.device import energy_metrics
from vheatbench.measure.kernels import attention_kernels
from vheatbench.measure.memory import (
    HostBaseline,
    host_baseline,
    measure_memory,
    released_bytes,
    unmeasured_memory,
    without_value,
)
from vheatbench.measure.outputs import check_finite
from vheatbench.measure.precision import slow_precision
from vheatbench.measure.timing import Sampler, timer_for, timing_metrics, uncollected
from vheatbench.measure.watch import DeviceWatch
from vheatbench.run.ceiling import ceiling_metric, ceiling_step
from vheatbench.run.counts import count_model, count_operator, cross_check
from vheatbench.run.device import classify, prepared_device
from vheatbench.run.largest_batch import largest_batch
from vheatbench.run.step import DTYPES, Setup, place, prepare
from vheatbench.run.task import Event, Interim, MeasureTask, Turn
from vheatbench.store.schema import Metric, Record
from vheatbench.subjects.built import Builder, Built
from vheatbench.subjects.catalog import build
from vheatbench.subjects.operators import heat_backend
from vheatbench.subjects.packed import drop_copies, held_bytes
from vheatbench.suites import SuitePolicy
from vheatbench.text import utc_now


class Runner(Protocol):
    """The process that this one works for, from its side."""

    def left(self, interim: Interim) -> None:
        """Told what would be left if this process died now."""

    def turn(self, event: Event) -> Turn:
        """Told what a turn gave; what to do next, once it is this process's turn again."""


class Nobody:
    """Where nobody waits for more than the record."""

    def left(self, interim: Interim) -> None:
        """Nothing is left."""

    def turn(self, event: Event) -> Turn:
        """There are no others."""
        return Turn()


class _Lap:
    """Where the time goes: each call of :meth:`end` adds what has passed since the last to a part of it."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self._since = time.monotonic()

    def end(self, part: str) -> None:
        now = time.monotonic()
        self.spent[part] = self.spent.get(part, 0.0) + now - self._since
        self._since = now


def measure_case(task: MeasureTask, runner: Runner | None = None, builder: Builder = build) -> Record:
    """Measure one case. Never raises for what a case can do wrong: the record says it.

    ``runner`` is told the batch before each try of a search for the largest, and the record once all is measured that
    decides its status; where the case takes turns with others, it says when. ``builder`` gives what is measured: by
    default what the case's name stands for.
    """
    case, policy = task.case, task.policy
    record = Record(
        case=case,
        case_id=case.id,
        round=task.round,
        status="ok",
        started=utc_now(),
    )
    started, lap = time.monotonic(), _Lap()
    runner = runner or Nobody()
    if task.others:  # everything is imported: the first turn is for building and warming up
        runner.turn(Event())
        lap.end("wait")
    try:
        # the limit ends before the record is made, which where memory has run out needs some itself
        with prepared_device(case, policy) as device:
            _measure(task, device, record, runner, lap, builder)
    except (Exception, SystemExit) as error:  # whatever a model raises is this case's result
        record.status, record.reason = classify(error)
    lap.end("memory" if record.status == "ok" else "failing")
    record.elapsed_s = time.monotonic() - started
    record.spent_s = lap.spent
    return record


def _measure(
    task: MeasureTask, device: torch.device, record: Record, runner: Runner, lap: _Lap, builder: Builder
) -> None:
    case, policy = task.case, task.policy
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0] if device.type == "cpu" else None
    interim = Interim(memory_limit_bytes=limit if limit != resource.RLIM_INFINITY else None)
    runner.left(interim)
    record.warnings += slow_precision(case.dtype, case.device)
    if case.kind == "ceiling":
        _measure_ceiling(task, device, record, lap)
        return
    check_engine(case)
    check_present(case)
    if case.kind == "model" and task.count:
        if builder is build:
            count_model(case, record)
        else:  # not every module can be counted without being run
            with _added(record, "multiply-adds were not counted"):
                count_model(case, record, builder)
        lap.end("count")
    built = builder(case, "cpu")
    record.subject = {**built.facts, "precision": ""}
    record.warnings += built.warnings
    record.metrics["params"] = _params(built)
    model = place(built, case, device)
    lap.end("build")
    backend = heat_backend(case, device, DTYPES[case.dtype]) if case.kind == "operator" else None
    with built.context():
        batch = _batch(
            case, model, built, policy, device, record,
            lambda n: runner.left(interim.model_copy(update={"batch": n})),
        )  # fmt: skip
        setup = prepare(model, built, batch, case, device, task.folder)
        record.subject["precision"] = setup.precision
        record.warnings += setup.notes
        _say_engine(setup, record)
        lap.end("build")
        if case.kind == "operator" and task.count:
            count_operator(case, built, batch, backend, record)
            lap.end("count")
        baseline = _baseline(setup, model, device)
        _first_call(setup, case, device, record)
        lap.end("compile" if case.compiled else "warm-up")
        loops = _time(setup.step, task, device, batch, record, runner, lap)
        # The case is measured. What follows adds to the record, and whatever becomes of it the status stays.
        runner.left(interim.model_copy(update={"record": record}))
        if device.type == "cuda":
            with _added(record, "energy was not taken"):
                _energy(record, loops, batch)
        if task.memory:
            with _added(record, "memory was not measured") as memory:
                record.metrics |= measure_memory(
                    setup.step,
                    device,
                    weights_bytes=setup.weights_bytes,
                    input_bytes=setup.input_bytes,
                    baseline=baseline,
                )
            if memory.problem is not None:
                record.metrics |= unmeasured_memory(memory.problem)
            elif held := held_bytes(model):
                record.metrics |= _without_copies(record, held)
            elif case.exported:
                record.metrics |= _unseen_by_torch(record)
        if task.others and "nvml_device_bytes" in record.metrics:
            record.metrics["nvml_device_bytes"] = without_value(
                record.metrics["nvml_device_bytes"], "the others that it took turns with were on the device too"
            )
        if case.kind == "operator" and task.count:
            # last: torch's profiler leaves memory behind that would hide the step's growth
            record.subject["kernel"] = None if case.exported else backend
            with _added(record, "which kernel ran was not found out"):
                if not case.exported:
                    record.subject["kernel"] = backend or ", ".join(attention_kernels(setup.step)) or None
    lap.end("memory")
    if policy.fvcore and case.kind == "model" and task.count:
        with _added(record, "not counted with fvcore"):
            cross_check(case, record)
        lap.end("count")


def _baseline(setup: Setup, model: nn.Module, device: torch.device) -> HostBaseline | None:
    """What the process has resident without what is measured; a model that was exported is given back."""
    before = setup.baseline
    with_model = host_baseline() if device.type == "cpu" else None
    if before is None:
        return with_model
    drop_copies(model)
    model.to("meta")  # the engine has weights of its own
    if with_model is None:
        return None
    return before.without(with_model.rss_bytes - host_baseline().rss_bytes)


@dataclass
class _Added:
    problem: str | None = None


@contextlib.contextmanager
def _added(record: Record, what: str) -> Iterator[_Added]:
    """A step after the measurement: an error in it is a warning in the record."""
    added = _Added()
    try:
        yield added
    except (Exception, SystemExit) as error:
        added.problem = classify(error)[1]
        record.warnings.append(f"{what}: {added.problem}")


def _without_copies(record: Record, held: int) -> dict[str, Metric]:
    """What the copies of weights take, which are made in the first call, goes to the weights and not to the step."""
    found = {}
    for name, change in (("peak_memory_bytes", -held), ("peak_rss_growth_bytes", -held), ("weights_bytes", held)):
        metric = record.metrics.get(name)
        if metric is not None and metric.value is not None:
            how = f"{metric.how}; {held / 2**20:.0f} MiB of packed weights are counted as weights"
            value = metric.value + change
            moved = metric.model_copy(update={"value": value, "how": how})
            small = "the step stayed within what the packed weights took: growth too small for RSS"
            found[name] = moved if value > 0 else without_value(moved, small)
    return found


def _params(built: Built) -> Metric:
    return Metric(
        value=sum(p.numel() for p in built.model.parameters()),
        unit="parameters",
        direction="lower",
        how=f"of the {built.facts['form']}"
        + (", the precomputed decay included" if built.facts["form"].endswith("deploy form") else ""),
        deterministic=True,
    )


def _batch(
    case: Case,
    model: nn.Module,
    built: Built,
    policy: SuitePolicy,
    device: torch.device,
    record: Record,
    trying: Callable[[int], None],
) -> int:
    """The case's batch, or the largest that fits, which then is a metric; ``trying`` is told each that is tried."""
    if isinstance(case.batch, int):
        return case.batch
    eager = case.model_copy(update={"engine": "eager", "dynamic": False})

    def attempt(batch: int) -> None:
        trying(batch)
        prepare(model, built, batch, eager, device).step()

    largest = largest_batch(
        attempt,
        lambda error: classify(error)[0] == "oom",
        device,
        policy.max_batch,
    )
    record.metrics["largest_batch"] = largest
    assert largest.value is not None
    return int(largest.value)


def _measure_ceiling(task: MeasureTask, device: torch.device, record: Record, lap: _Lap) -> None:
    case = task.case
    step = ceiling_step(case, device)
    record.subject = {"name": case.subject, "family": "ceiling", "precision": case.dtype}
    lap.end("build")
    _time(step, task, device, 1, record, Nobody(), lap)
    del record.metrics["throughput_images_per_s"]
    record.metrics |= ceiling_metric(case, record.metrics["latency_s"])


def _time(
    step: Callable[[], Any],
    task: MeasureTask,
    device: torch.device,
    batch: int,
    record: Record,
    runner: Runner,
    lap: _Lap,
) -> int:
    """The timing pass, in one go or in turns, with the device watched; returns the steps per sample."""
    watch = DeviceWatch(task.case.device, 0, companions=task.others)
    watch.start()
    sampler = Sampler(step, timer_for(device), task.policy, between=watch.tick)
    sampler.warm_up()
    lap.end("warm-up")
    if task.others:
        _take_turns(sampler, watch, device, runner, lap)
    else:
        sampler.run()
        lap.end("samples")
    record.conditions |= watch.stop()
    metrics, samples, warnings = timing_metrics(sampler.timing, batch)
    record.metrics |= metrics
    record.samples |= samples
    record.warnings += warnings + watch.warnings
    return sampler.timing.loops


def _take_turns(sampler: Sampler, watch: DeviceWatch, device: torch.device, runner: Runner, lap: _Lap) -> None:
    """Say that the case is warm, then sample when it is this process's turn, until the runner ends it."""
    needs = released_bytes() if device.type == "cpu" else 0
    event = Event(samples=sampler.timing.warmup_s[-1:], needs_bytes=needs)
    with uncollected():
        while True:
            watch.pause()
            lap.end("samples")
            told = runner.turn(event)
            lap.end("wait")
            watch.resume()
            if told.seconds is None:
                sampler.timing.stopped_by = told.stopped_by
                return
            event = Event(samples=sampler.turn(told.seconds))


def _say_engine(setup: Setup, record: Record) -> None:
    """What the engine says of its session: facts, metrics, warnings."""
    session = setup.session
    if session.facts:
        record.subject["engine"] = session.facts
    record.warnings += session.warnings
    record.metrics |= {name: Metric(**found._asdict()) for name, found in session.numbers.items()}


def _check_agreement(output: Any, setup: Setup, record: Record) -> None:
    """Keep how far the engine's output is from the model's own. Raises AgreementError where that is too far."""
    if not setup.expected:
        return
    found, tolerance = disagreement(output, setup.expected), setup.session.tolerance
    allowed = f"at most {tolerance:g} allowed" if tolerance is not None else "stated, not judged"
    record.metrics["engine_error"] = Metric(
        value=found,
        unit="relative",
        direction="lower",
        how=f"largest difference from {setup.session.compared}, over its largest value; {allowed}",
    )
    if tolerance is not None and not found <= tolerance:
        raise AgreementError(
            f"engine {record.case.engine} computes something else: its output is {found:.3g} away from "
            f"{setup.session.compared}, relative to the largest value, and {tolerance:g} is allowed"
        )


def _unseen_by_torch(record: Record) -> dict[str, Metric]:
    """Of an engine that allocates for itself: what torch's allocator says is not its memory."""
    names: tuple[str, ...] = ("activation_peak_bytes", "peak_allocated_bytes", "peak_reserved_bytes")
    if record.case.device == "cuda":
        names += ("peak_memory_bytes",)
    reason = f"{record.case.engine} allocates for itself, which torch's allocator does not see"
    return {name: without_value(record.metrics[name], reason) for name in names if name in record.metrics}


def _first_call(setup: Setup, case: Case, device: torch.device, record: Record) -> None:
    """Compile if asked, and see that what is measured is finite and what the model computes."""
    started = time.monotonic()
    output = setup.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if case.compiled:
        record.metrics["compile_time_s"] = Metric(
            value=time.monotonic() - started,
            unit="s",
            direction="lower",
            how="first call under torch.compile, wall clock",
        )
    check_finite(output, f" in {setup.precision}")
    _check_agreement(output, setup, record)


def _energy(record: Record, loops: int, batch: int) -> None:
    """Energy between the two readings of the counter, which hold warm-up and samples alike."""
    samples = record.samples["latency_s"]
    images = (len(samples.warmup) + len(samples.values) * loops) * batch
    conditions = record.conditions
    unavailable = conditions["unavailable"]
    record.metrics |= energy_metrics(
        conditions["energy_start_j"],
        conditions["energy_end_j"],
        images,
        conditions["elapsed_s"],
        reason=unavailable.get("nvml") or unavailable.get("energy_j"),
    )

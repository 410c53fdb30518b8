"""Carrying one case out, inside a worker process: build the subject, measure it, make the record."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from vheatbench.case import Case
from vheatbench.measure.device import energy_metrics
from vheatbench.measure.kernels import attention_kernels
from vheatbench.measure.memory import host_baseline, measure_memory, unmeasured_memory
from vheatbench.measure.outputs import check_finite
from vheatbench.measure.precision import slow_precision
from vheatbench.measure.timing import measure_time, timer_for, timing_metrics
from vheatbench.measure.watch import DeviceWatch
from vheatbench.run.ceiling import ceiling_metric, ceiling_step
from vheatbench.run.counts import count_model, count_operator, cross_check
from vheatbench.run.device import classify, prepared_device
from vheatbench.run.largest_batch import largest_batch
from vheatbench.run.step import DTYPES, Setup, check_compile, place, prepare
from vheatbench.run.task import Interim, MeasureTask
from vheatbench.store.schema import Metric, Record
from vheatbench.subjects.built import Built
from vheatbench.subjects.catalog import build
from vheatbench.subjects.operators import heat_backend
from vheatbench.suites import SuitePolicy
from vheatbench.text import utc_now

Leave = Callable[[Interim], None]
"""Told what would be left if this process died now."""


def measure_case(task: MeasureTask, leave: Leave = lambda interim: None) -> Record:
    """Measure one case. Never raises for what a case can do wrong: the record says it.

    ``leave`` is told the batch before each try of a search for the largest, and the record once all is measured that
    decides its status.
    """
    case, policy = task.case, task.policy
    record = Record(
        case=case,
        case_id=case.id,
        round=task.round,
        status="ok",
        started=utc_now(),
    )
    started = time.monotonic()
    try:
        # the limit ends before the record is made, which where memory has run out needs some itself
        with prepared_device(case, policy) as device:
            _measure(case, policy, device, record, leave)
    except (Exception, SystemExit) as error:  # whatever a model raises is this case's result
        record.status, record.reason = classify(error)
    record.elapsed_s = time.monotonic() - started
    return record


def _measure(case: Case, policy: SuitePolicy, device: torch.device, record: Record, leave: Leave) -> None:
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0] if device.type == "cpu" else None
    interim = Interim(memory_limit_bytes=limit if limit != resource.RLIM_INFINITY else None)
    leave(interim)
    record.warnings += slow_precision(case.dtype, case.device)
    if case.kind == "ceiling":
        _measure_ceiling(case, policy, device, record)
        return
    check_compile(case)
    if case.kind == "model":
        count_model(case, record)
    built = build(case)
    record.subject = {**built.facts, "precision": ""}
    record.warnings += built.warnings
    record.metrics["params"] = _params(built)
    model = place(built, case, device)
    backend = heat_backend(case, device, DTYPES[case.dtype]) if case.kind == "operator" else None
    with built.context():
        batch = _batch(
            case, model, built, policy, device, record, lambda n: leave(interim.model_copy(update={"batch": n}))
        )
        setup = prepare(model, built, batch, case, device)
        record.subject["precision"] = setup.precision
        record.warnings += setup.notes
        if case.kind == "operator":
            count_operator(case, built, batch, backend, record)
        baseline = host_baseline() if device.type == "cpu" else None
        _first_call(setup, case, device, record)
        loops = _time(setup.step, case, policy, device, batch, record)
        # The case is measured. What follows adds to the record, and whatever becomes of it the status stays.
        leave(interim.model_copy(update={"record": record}))
        if device.type == "cuda":
            with _added(record, "energy was not taken"):
                _energy(record, loops, batch)
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
        if case.kind == "operator":
            # last: torch's profiler leaves memory behind that would hide the step's growth
            record.subject["kernel"] = backend
            with _added(record, "which kernel ran was not found out"):
                record.subject["kernel"] = backend or ", ".join(attention_kernels(setup.step)) or None
    if policy.fvcore and case.kind == "model":
        with _added(record, "not counted with fvcore"):
            cross_check(case, record)


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
    eager = case.model_copy(update={"compile": False})

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


def _measure_ceiling(case: Case, policy: SuitePolicy, device: torch.device, record: Record) -> None:
    step = ceiling_step(case, device)
    record.subject = {"name": case.subject, "family": "ceiling", "precision": case.dtype}
    _time(step, case, policy, device, 1, record)
    del record.metrics["throughput_images_per_s"]
    record.metrics |= ceiling_metric(case, record.metrics["latency_s"])


def _time(
    step: Callable[[], Any], case: Case, policy: SuitePolicy, device: torch.device, batch: int, record: Record
) -> int:
    """The timing pass, with the device watched; returns the steps per sample."""
    watch = DeviceWatch(case.device, 0)
    watch.start()
    timing = measure_time(step, timer_for(device), policy, between=watch.tick)
    record.conditions |= watch.stop()
    metrics, samples, warnings = timing_metrics(timing, batch)
    record.metrics |= metrics
    record.samples |= samples
    record.warnings += warnings + watch.warnings
    return timing.loops


def _first_call(setup: Setup, case: Case, device: torch.device, record: Record) -> None:
    """Compile if asked, and see that what is measured is finite."""
    started = time.monotonic()
    output = setup.step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    if case.compile:
        record.metrics["compile_time_s"] = Metric(
            value=time.monotonic() - started,
            unit="s",
            direction="lower",
            how="first call under torch.compile, wall clock",
        )
    check_finite(output, f" in {setup.precision}")


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

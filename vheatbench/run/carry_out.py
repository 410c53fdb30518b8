"""Carrying one case out, inside a worker process: build the subject, measure it, make the record."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from vheatbench.case import Case
from vheatbench.errors import UserError, one_line
from vheatbench.measure.device import energy_metrics
from vheatbench.measure.flops import count_flops, count_with_fvcore, disagreement, flop_metrics
from vheatbench.measure.memory import host_baseline, measure_memory
from vheatbench.measure.timing import measure_time, timer_for, timing_metrics
from vheatbench.measure.watch import DeviceWatch
from vheatbench.run.task import MeasureTask
from vheatbench.store.schema import Metric, Record, Status
from vheatbench.subjects.catalog import Built, build
from vheatbench.subjects.closed_form import closed_form_macs
from vheatbench.suites import SuitePolicy

GIB = 1024**3
DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
NO_MEMORY = ("out of memory", "can't allocate memory", "could not create a memory", "bad_alloc")
"""What libraries say, in errors of general types, when an allocation fails."""
AGREEMENT = 0.01
"""Relative difference from which two counts of multiply-adds are said to disagree."""


@dataclass
class Setup:
    """A case made ready to run: the step, and what it holds in memory."""

    step: Callable[[], Any]
    weights_bytes: int
    input_bytes: int
    precision: str


def carry_out(task: MeasureTask) -> Record:
    """Measure one case. Never raises for what a case can do wrong: the record says it."""
    case, policy = task.case, task.policy
    record = Record(
        case=case,
        case_id=case.id,
        round=task.round,
        status="ok",
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    started = time.monotonic()
    try:
        _measure(case, policy, record)
    except (Exception, SystemExit) as error:  # whatever a model raises is this case's result
        record.status, record.reason = classify(error)
    record.elapsed_s = time.monotonic() - started
    return record


def classify(error: BaseException) -> tuple[Status, str]:
    """Status and one-line reason of an exception."""
    text = str(error).strip()
    line = one_line(text) or type(error).__name__
    if isinstance(error, UserError):
        return "skipped", line
    memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
    if memory or any(words in text.lower() for words in NO_MEMORY):
        return "oom", f"out of memory: {line}"
    return "failed", f"{type(error).__name__}: {line}"


def _measure(case: Case, policy: SuitePolicy, record: Record) -> None:
    device = _prepare_device(case, policy)
    _count(case, record)
    built = build(case)
    record.subject = {**built.facts, "precision": ""}
    record.warnings += built.warnings
    parameters = sum(p.numel() for p in built.model.parameters())
    record.metrics["params"] = Metric(
        value=parameters,
        unit="parameters",
        direction="lower",
        how=f"of the {built.facts['form']}"
        + (", the precomputed decay included" if built.facts["form"] == "deploy form" else ""),
        deterministic=True,
    )
    model = _place(built.model, case, device)
    batch = case.batch if isinstance(case.batch, int) else _largest_batch(model, built, case, device, policy, record)
    setup = prepare(model, built.input_shape, batch, case, device)
    record.subject["precision"] = setup.precision
    baseline = host_baseline() if device.type == "cpu" else None
    _first_call(setup, case, device, record)

    watch = DeviceWatch(case.device, 0)
    watch.start()
    timing = measure_time(setup.step, timer_for(device), policy.sampling(), between=watch.tick)
    record.conditions |= watch.stop()
    metrics, samples, warnings = timing_metrics(timing, batch)
    record.metrics |= metrics
    record.samples |= samples
    record.warnings += warnings + watch.warnings
    if device.type == "cuda":
        _energy(record, timing.loops, batch)
    record.metrics |= measure_memory(
        setup.step,
        device,
        weights_bytes=setup.weights_bytes,
        input_bytes=setup.input_bytes,
        baseline=baseline,
    )
    if policy.fvcore:
        _cross_check(case, record)


def _prepare_device(case: Case, policy: SuitePolicy) -> torch.device:
    """Threads, memory limit and the float32 rule, before anything is allocated."""
    if case.device == "cuda" and not torch.cuda.is_available():
        raise UserError("CUDA was asked for, but torch sees no CUDA device")
    if case.dtype == "tf32" and case.device == "cpu":
        raise UserError("tf32 is a mode of NVIDIA GPUs: use float32 or bfloat16 on a CPU")
    if policy.threads is not None:
        torch.set_num_threads(policy.threads)
    if case.device == "cpu":
        # The limit makes torch raise instead of the kernel killing something. It counts private data
        # mappings only, so the gigabytes of address space that libraries reserve do not matter.
        limit = policy.memory_limit_gib * GIB if policy.memory_limit_gib else memory_limit("cpu")
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        soft = int(limit) if hard == resource.RLIM_INFINITY else min(int(limit), hard)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    # float32 means float32: torch's own default already allows TF32 in convolutions
    torch.backends.cuda.matmul.allow_tf32 = case.dtype == "tf32"
    torch.backends.cudnn.allow_tf32 = case.dtype == "tf32"
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda:0" if case.device == "cuda" else "cpu")


def memory_limit(kind: str) -> int:
    """Bytes that one worker may take: 90 % of the host memory that is available now, or all of the GPU's."""
    if kind == "cuda":
        return int(torch.cuda.get_device_properties(0).total_memory)
    from vheatbench.measure.host import memory_limit_bytes

    available = psutil.virtual_memory().available
    capped = memory_limit_bytes()
    return int(0.9 * min(available, capped if capped is not None else available))


def _count(case: Case, record: Record) -> None:
    """FLOPs on the meta device, against the closed form."""
    built = build(case, "meta")
    # what a batch costs beyond its images (k, in the training form) is spread over it
    batch = case.batch if isinstance(case.batch, int) else 1
    images = torch.empty(batch, *built.input_shape, device="meta")
    count = count_flops(lambda: built.model.eval()(images))
    form = built.facts["form"]
    record.metrics |= flop_metrics(count, batch, form, train=case.mode == "train")
    coverage: dict[str, Any] = {"macs": count.macs, "counted": count.by_operator, "uncounted_calls": count.uncounted}
    if count.suspicious:
        record.warnings.append(f"FLOPs may be too low, not counted: {', '.join(count.suspicious)}")
    formula = closed_form_macs(built.model, batch, case.resolution)
    if formula is not None:
        coverage["closed_form_macs"] = formula
        _compare_counts(count.macs, formula, "the closed form", coverage, record)
    record.conditions["flops_coverage"] = coverage


def _cross_check(case: Case, record: Record) -> None:
    """Count again with fvcore. Last, for it runs the model: memory that it leaves behind would hide growth."""
    coverage = record.conditions["flops_coverage"]
    built = build(case)
    batch = case.batch if isinstance(case.batch, int) else 1
    other = count_with_fvcore(built.model, torch.zeros(batch, *built.input_shape))
    coverage |= {"fvcore_macs": other.macs, "fvcore_skipped": other.skipped}
    record.metrics["macs_fvcore"] = Metric(
        value=other.macs / batch,
        unit="MAC/image",
        direction="lower",
        how="fvcore with handlers added for fused attention and broadcast products, norms included, "
        f"{built.facts['form']}, batch {batch}",
        deterministic=True,
    )
    _compare_counts(coverage["macs"], other.products, "fvcore (norms left out)", coverage, record)


def _compare_counts(ours: float, other: float, name: str, coverage: dict[str, Any], record: Record) -> None:
    difference = disagreement(ours, other)
    coverage[f"disagreement with {name}"] = difference
    if abs(difference) > AGREEMENT:
        record.warnings.append(f"{name} counts {difference:+.1%} multiply-adds against torch's counter")


def _place(model: nn.Module, case: Case, device: torch.device) -> nn.Module:
    model = model.to(device)
    if case.mode != "train":
        model = model.to(DTYPES[case.dtype]).requires_grad_(False)
    if case.memory_format == "channels_last":
        model = model.to(memory_format=torch.channels_last)
    return model


def prepare(model: nn.Module, shape: tuple[int, int, int], batch: int, case: Case, device: torch.device) -> Setup:
    """The step of a case's mode, closed over model, input and, for training, optimizer."""
    train = case.mode == "train"
    dtype = DTYPES[case.dtype]
    images = torch.randn(batch, *shape, device=device, dtype=torch.float32 if train else dtype)
    if case.memory_format == "channels_last":
        images = images.contiguous(memory_format=torch.channels_last)
    call: Callable[[Tensor], Tensor] = torch.compile(model) if case.compile else model
    step = _training_step(model, call, images, dtype) if train else _inference_step(call, images)
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    precision = f"weights and input in {str(dtype).removeprefix('torch.')}"
    if train and dtype != torch.float32:
        precision = f"float32 weights, {str(dtype).removeprefix('torch.')} autocast"
    if case.dtype == "tf32":
        precision += ", products in TF32"
    return Setup(step, weights, images.numel() * images.element_size(), precision)


def _inference_step(call: Callable[[Tensor], Tensor], images: Tensor) -> Callable[[], Tensor]:
    def step() -> Tensor:
        with torch.inference_mode():
            return call(images)

    return step


def _training_step(
    model: nn.Module, call: Callable[[Tensor], Tensor], images: Tensor, dtype: torch.dtype
) -> Callable[[], Tensor]:
    """Forward, cross-entropy, backward and AdamW; low precision by autocast, float16 with a scaler."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(images.device.type, enabled=dtype == torch.float16)
    with torch.no_grad():
        classes = model(images[:1]).shape[-1]
    labels = torch.arange(images.shape[0], device=images.device) % classes

    def step() -> Tensor:
        with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
            loss = nn.functional.cross_entropy(call(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


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
    if not bool(torch.isfinite(output).all()):
        raise FloatingPointError(f"the output is not finite in {record.subject['precision']}")


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


def _largest_batch(
    model: nn.Module, built: Built, case: Case, device: torch.device, policy: SuitePolicy, record: Record
) -> int:
    """Largest batch that fits: doubled until it does not, then halved in; itself a metric."""

    def fits(batch: int) -> bool:
        try:
            prepare(model, built.input_shape, batch, case.model_copy(update={"compile": False}), device).step()
        except Exception as error:  # out of memory has several types
            if classify(error)[0] != "oom":
                raise
            return False
        finally:
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
        return True

    best, step = 0, 1
    while step <= policy.max_batch and fits(step):
        best, step = step, step * 2
    if best == 0:
        raise MemoryError("not even one image fits")
    low, high = best, min(step, policy.max_batch + 1)
    # to the nearest eighth: finer steps cost a pass each and say nothing more
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        if fits(middle):
            low = middle
        else:
            high = middle
    capped = low >= policy.max_batch
    record.metrics["largest_batch"] = Metric(
        value=low,
        unit="images",
        direction="higher",
        how="doubled until out of memory, then bisected to an eighth"
        + (f"; the search ends at {policy.max_batch}" if capped else ""),
    )
    return low

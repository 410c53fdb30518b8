"""Where a model's time, memory and FLOPs go: ranges around its modules and parts, and the steps profiled."""

from __future__ import annotations

import contextlib
import gc
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.profiler import ProfilerActivity, record_function

from vheatbench.measure.flops import FlopCounter
from vheatbench.measure.trace import MODULE, OUTSIDE, PART, STEP, Place

Listener = Callable[[str], AbstractContextManager[object]]
"""Makes the context of a range out of its name."""
Parts = Callable[[Listener], AbstractContextManager[object]]
"""Makes the parts that a model names heard: within the context, each part is what the listener makes of it."""


def no_parts(listener: Listener) -> AbstractContextManager[object]:
    """For models that name no parts, and for compiled ones."""
    return contextlib.nullcontext()


@contextlib.contextmanager
def module_ranges(model: nn.Module, listener: Listener) -> Iterator[None]:
    """Within it every call of a module of ``model`` is a range ``module/<path>``; the model's own path is empty.

    The hooks are torch's global ones: a model that takes another path where somebody hooks a layer takes its own.
    """
    paths = {module: path for path, module in model.named_modules()}
    open_ranges: dict[nn.Module, list[AbstractContextManager[object]]] = defaultdict(list)

    def enter(module: nn.Module, *_: object) -> None:
        if module in paths:
            context = listener(MODULE + paths[module])
            context.__enter__()
            open_ranges[module].append(context)

    def leave(module: nn.Module, *_: object) -> None:
        if module in paths:
            open_ranges[module].pop().__exit__(None, None, None)

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _FlopRanges:
    """Charges what a FLOP counter counts to the innermost range."""

    def __init__(self, counter: FlopCounter) -> None:
        self.counter = counter
        self.flops: dict[Place, int] = defaultdict(int)
        self.place = Place(OUTSIDE, "")
        self.seen = 0

    def _charge(self) -> None:
        total = int(self.counter.get_total_flops())
        if total != self.seen:
            self.flops[self.place] += total - self.seen
            self.seen = total

    @contextlib.contextmanager
    def range(self, name: str) -> Iterator[None]:
        self._charge()
        outer, self.place = self.place, self.place.inner(name)
        try:
            yield
        finally:
            self._charge()
            self.place = outer


def flops_by_place(model: nn.Module, forward: Callable[[], object], parts: Parts = no_parts) -> dict[Place, int]:
    """FLOPs (a multiply-add is 2) of one call of ``forward`` by module and part, best on the meta device.

    Counted are the operators that ``torch.utils.flop_counter`` knows, as in :func:`.flops.count_flops`.
    """
    counter = FlopCounter()
    ranges = _FlopRanges(counter)
    with counter, module_ranges(model, ranges.range), parts(_part(ranges.range)):
        forward()
    return dict(ranges.flops)


def profile_steps(
    step: Callable[[], object],
    steps: int,
    device: torch.device,
    model: nn.Module | None = None,
    parts: Parts = no_parts,
) -> dict[str, Any]:
    """Profile a warm step and return the Chrome trace as JSON data, each step in a range ``step/<number>``.

    One step more runs first, outside of any such range.

    Args:
        step: what to profile; call it until it is warm before.
        steps: how many times.
        device: a CUDA device adds its kernels to the trace.
        model: whose modules become ranges; None where hooks would not run, as in a compiled model.
        parts: makes named parts ranges as well.
    """
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    ranges = module_ranges(model, record_function) if model is not None else contextlib.nullcontext()
    with ranges, parts(_part(record_function)):
        collecting = gc.isenabled()
        gc.collect()
        gc.disable()
        try:
            with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
                # the first step that is watched is slow: it lies in no step range
                step()
                _finish(device)
                for number in range(steps):
                    with record_function(f"{STEP}{number}"):
                        step()
                        _finish(device)
        finally:
            if collecting:
                gc.enable()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(path))
        trace: dict[str, Any] = json.loads(path.read_bytes())
    return trace


def _part(listener: Listener) -> Listener:
    return lambda name: listener(PART + name)


def _finish(device: torch.device) -> None:
    """Wait for the device, so that a step's kernels lie within its range."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

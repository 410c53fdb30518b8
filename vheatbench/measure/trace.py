"""Whose time and memory it is: a trace of torch.profiler, charged to the ranges that its events lie in.

Ranges are user annotations: :data:`STEP`, :data:`MODULE` and :data:`PART`, each followed by a name. Works on
the Chrome trace itself, so what is reported is what the written file shows.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from vheatbench.stats import median

STEP, MODULE, PART = "step/", "module/", "part/"
OUTSIDE = "(outside the model)"
OPTIMIZER = "(optimizer)"
BACKWARD = "autograd::engine::evaluate_function: "
NO_OPERATOR = "(between operators: Python, launching)"
KERNELS = {"kernel", "gpu_memcpy", "gpu_memset"}
LAUNCHES = {"cuda_runtime", "cuda_driver"}
DEVICE_NUMBER = {"cpu": 0, "cuda": 1}
"""``Device Type`` of a memory event."""

Event = dict[str, Any]


class Place(NamedTuple):
    """Where in the model something happened."""

    module: str
    """Dotted path of the innermost module; empty for the model itself; or :data:`OUTSIDE`, :data:`OPTIMIZER`."""
    part: str
    """Innermost named part, or empty."""

    def inner(self, name: str) -> Place:
        """The place of a range of this name that opens here."""
        if name.startswith(MODULE):
            return Place(name[len(MODULE) :], self.part)
        if name.startswith(PART):
            return Place(self.module, name[len(PART) :])
        if name.startswith("Optimizer."):
            return Place(OPTIMIZER, "")
        return self


@dataclass
class Operator:
    """One operator's share of a step."""

    seconds: float = 0.0
    calls: float = 0.0


@dataclass
class Usage:
    """What one step costs, by place and by operator. Every figure is the median over the steps."""

    seconds: dict[Place, float] = field(default_factory=dict)
    """Device time: on a CPU the wall clock less what inner ranges took, on a GPU the run time of kernels."""
    allocated_bytes: dict[Place, float] = field(default_factory=dict)
    """Sum of all allocations, freed or not."""
    operators: dict[str, Operator] = field(default_factory=dict)
    """Time of an operator less that of operators it calls; sums to the sum of ``seconds`` up to medians."""
    step_s: float = 0.0
    """Wall clock of a profiled step on the host."""


@dataclass
class _Frame:
    """An open range or operator of one thread."""

    end: float
    place: Place
    operator: str
    backward: bool
    self_us: float


@dataclass
class _Step:
    """Sums of one step, in microseconds and bytes."""

    start: float
    duration: float
    thread: object
    us: dict[Place, float] = field(default_factory=lambda: defaultdict(float))
    bytes: dict[Place, float] = field(default_factory=lambda: defaultdict(float))
    operator_us: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))


def usage(trace: dict[str, Any], device: str) -> Usage:
    """Charge every event of a Chrome trace to the innermost module and part around it.

    Backward operators are charged to the place of the forward operator that made them, by the profiler's
    sequence number; kernels to the place they were launched from; both medians over the ``step/`` ranges.

    Args:
        trace: as ``export_chrome_trace`` writes it, memory profiled.
        device: ``cpu`` or ``cuda``, whose time and memory count.

    Raises:
        ValueError: the trace holds no step.
    """
    return _Reader(trace["traceEvents"], device).read()


class _Reader:
    def __init__(self, events: Iterable[Event], device: str) -> None:
        self.device = device
        timed = [event for event in events if "ts" in event and event.get("cat") is not None]
        # what opens first comes first; of equal starts the longer is outside; points come last
        self.events = sorted(timed, key=lambda e: (e["ts"], e["ph"] != "X", -e.get("dur", 0.0)))
        self.steps = [
            _Step(e["ts"], e["dur"], e["tid"])
            for e in self.events
            if e["cat"] == "user_annotation" and e["name"].startswith(STEP)
        ]
        self.starts = [step.start for step in self.steps]
        self.stacks: dict[object, list[_Frame]] = defaultdict(list)
        self.made: dict[int, Place] = {}
        """Place of the forward operator that made the backward node of a sequence number."""
        self.launched: dict[object, tuple[Place, str, float]] = {}

    def read(self) -> Usage:
        if not self.steps:
            raise ValueError("the trace holds no step")
        kernels = []
        for event in self.events:
            kind = event["cat"]
            if kind in ("user_annotation", "cpu_op"):
                self._open(event)
            elif kind in LAUNCHES:
                self.launched[event["args"].get("correlation")] = (*self._here(event), event["ts"])
            elif kind in KERNELS:
                kernels.append(event)
            elif event["name"] == "[memory]":
                self._allocate(event)
        for thread in self.stacks:
            self._close(thread, float("inf"))
        if self.device == "cuda":
            for kernel in kernels:
                self._charge_kernel(kernel)
        return self._medians()

    def _step_at(self, ts: float) -> _Step | None:
        """The step that a moment lies in, whichever the thread."""
        i = bisect.bisect_right(self.starts, ts) - 1
        return self.steps[i] if i >= 0 and ts <= self.starts[i] + self.steps[i].duration else None

    def _here(self, event: Event) -> tuple[Place, str]:
        """Place and operator of a moment in a thread."""
        self._close(event["tid"], event["ts"])
        stack = self.stacks[event["tid"]]
        return (stack[-1].place, stack[-1].operator) if stack else (Place(OUTSIDE, ""), NO_OPERATOR)

    def _open(self, event: Event) -> None:
        place, operator = self._here(event)
        stack = self.stacks[event["tid"]]
        name, arguments = event["name"], event.get("args", {})
        backward = bool(stack) and stack[-1].backward
        if event["cat"] == "user_annotation":
            place = place.inner(name)
        else:
            operator = name
            sequence = arguments.get("Sequence number")
            if name.startswith(BACKWARD):
                operator, backward = name[len(BACKWARD) :], True
                place = self.made.get(sequence, Place(OUTSIDE, ""))
            elif sequence is not None and not backward:
                # of all operators that saw this number, the last one made the node that carries it
                self.made[sequence] = place
            step = self._step_at(event["ts"])
            if step is not None:
                step.calls[operator] += 1
        if stack:
            stack[-1].self_us -= event["dur"]
        stack.append(_Frame(event["ts"] + event["dur"], place, operator, backward, event["dur"]))

    def _close(self, thread: object, ts: float) -> None:
        """Leave what ended in this thread before a moment, and charge its own time."""
        stack = self.stacks[thread]
        while stack and stack[-1].end <= ts:
            frame = stack.pop()
            step = self._step_at(frame.end)
            if self.device == "cpu" and step is not None and step.thread == thread:
                step.us[frame.place] += frame.self_us
                step.operator_us[frame.operator] += frame.self_us

    def _charge_kernel(self, kernel: Event) -> None:
        launch = self.launched.get(kernel["args"].get("correlation"))
        place, operator, ts = launch or (Place(OUTSIDE, ""), NO_OPERATOR, kernel["ts"])
        step = self._step_at(ts)
        if step is not None:
            step.us[place] += kernel["dur"]
            # a kernel that no operator launched (a Triton kernel, say) goes by its own name
            step.operator_us[kernel["name"] if operator == NO_OPERATOR else operator] += kernel["dur"]

    def _allocate(self, event: Event) -> None:
        arguments = event["args"]
        place, _ = self._here(event)
        step = self._step_at(event["ts"])
        if step is not None and arguments["Device Type"] == DEVICE_NUMBER[self.device] and arguments["Bytes"] > 0:
            step.bytes[place] += arguments["Bytes"]

    def _medians(self) -> Usage:
        def over_steps(sums: list[dict[Any, float]]) -> dict[Any, float]:
            keys = dict.fromkeys(key for one in sums for key in one)
            return {key: median([one.get(key, 0.0) for one in sums]) for key in keys}

        calls = over_steps([dict(step.calls) for step in self.steps])
        operators = over_steps([step.operator_us for step in self.steps])
        return Usage(
            seconds={place: us / 1e6 for place, us in over_steps([step.us for step in self.steps]).items()},
            allocated_bytes=over_steps([step.bytes for step in self.steps]),
            operators={name: Operator(us / 1e6, calls.get(name, 0)) for name, us in operators.items()},
            step_s=median([step.duration for step in self.steps]) / 1e6,
        )

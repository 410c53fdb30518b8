"""A suite as it will be carried out on the machine that is there: what ``run`` and ``vb.run`` begin with."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vheatbench.cli.execute import execute, plan_of, served_devices, tasks_of
from vheatbench.cli.parse import device_kind
from vheatbench.errors import UserError

if TYPE_CHECKING:
    from vheatbench.case import Case, DeviceType
    from vheatbench.run.task import Inspection, Planned
    from vheatbench.store.schema import Header
    from vheatbench.suites import Suite


@dataclass(frozen=True)
class SuitePlan:
    """A suite for the device that is there, its timed cases and studies, and what the machine says of them."""

    suite: Suite
    kind: str
    cases: list[Case]
    studies: list[tuple[str, Planned, dict[str, Any]]]
    """Name, plan and settings."""
    inspection: Inspection

    @property
    def all_cases(self) -> list[Case]:
        groups = [group for _, planned, _ in self.studies for group in planned.groups]
        return self.cases + [case for group in groups for case in group.cases]

    def header(self, command: str, part: str | None = None) -> Header:
        """Of a new run of it.

        Args:
            command: that it is carried out by.
            part: i/n, where it is a shard.
        """
        from vheatbench.run.recording import new_header

        suite = self.suite
        return new_header(
            suite.name,
            suite.description,
            command,
            self.inspection.environment,
            plan=self.all_cases,
            studies=[{"study": name, "settings": settings} for name, _, settings in self.studies],
            rounds=suite.policy.rounds,
            policy=suite.policy.model_dump(mode="json"),
            reference=suite.reference.model_dump(mode="json") if suite.reference else {},
            shard=part,
        )


def carry_out(
    plan: SuitePlan,
    header: Header,
    out: str | Path,
    began: float,
    device: str = "auto",
    devices: str | None = None,
    quiet: bool = False,
) -> Path:
    """Measure everything of a plan, and return the finished file.

    Args:
        plan: of the machine that is here.
        header: of the new run.
        out: folder of its file.
        began: moment of the monotonic clock from which a budget counts.
        device, devices, quiet: see the options of ``run``.

    Raises:
        UserError: the devices are not there, or a header that cannot be kept.
        StoreError: the file cannot be written.
        Exit: where a budget did not suffice for every case once.
    """
    from vheatbench.store.write import RunWriter

    served = served_devices(plan.kind, device, devices, plan.inspection.cuda_devices)
    try:
        writer = RunWriter.create(out, header)
    except ValueError as error:  # an infinite time limit, say
        raise UserError(f"suite {plan.suite.name!r} cannot be kept: {error}") from None
    tasks = [task for study in plan.studies for task in tasks_of(*study, writer.path)]
    budget_s = plan.suite.policy.budget_s
    left = budget_s - (time.monotonic() - began) if budget_s is not None else None
    return execute(writer, served, tasks, quiet, left)


def plan_suite(
    load: Callable[[DeviceType], Suite],
    device: str,
    devices: str | None = None,
    part: tuple[int, int] | None = None,
    foresee: bool = False,
    elsewhere: bool = False,
) -> SuitePlan:
    """The plan of a suite for the device that is there.

    Args:
        load: gives the suite for a kind of device.
        device, devices: see the options of ``run``.
        part: i and n of a shard: only the i-th of n parts of its groups.
        foresee: whether to look ahead at what each case costs.
        elsewhere: whether it is for a device that other machines have.

    Raises:
        UserError: no such suite or device, or something in the suite that is not allowed.
        WorkerError: no process can look at this machine.
    """
    from vheatbench.run.runner import inspect_machine
    from vheatbench.suites import groups_of

    wanted, _ = device_kind(device)
    kind: DeviceType = likely_kind() if wanted == "auto" and devices is None else "cpu" if wanted == "cpu" else "cuda"
    while True:
        suite = load(kind)
        cases = suite.plan(kind)
        groups = groups_of(cases)
        of = len(groups)
        if part is not None:  # what is compared stays together
            cases = [case for group in groups[part[0] - 1 :: part[1]] for case in group]
        inspection = inspect_machine(cases, foresee)
        if kind == "cuda" and inspection.cuda_devices == 0 and not elsewhere:
            if wanted == "auto" and devices is None:
                print("torch sees no CUDA device (is it a CPU build?): measuring on the CPU", file=sys.stderr)
                kind = "cpu"
                continue
            note = inspection.environment.get("gpus_note") or "torch sees no CUDA device"
            raise UserError(f"CUDA was asked for, but there is none here: {note}")
        break
    if inspection.problems:
        more = f" (and {len(inspection.problems) - 1} more)" if len(inspection.problems) > 1 else ""
        raise UserError(inspection.problems[0] + more)
    studies = _studies(suite, kind)
    if part is not None:
        for _, planned, _ in studies:
            here = [group for i, group in enumerate(planned.groups, start=of) if i % part[1] == part[0] - 1]
            of += len(planned.groups)
            planned.groups = here
        if not cases and not any(planned.groups for _, planned, _ in studies):
            raise UserError(f"--shard {part[0]}/{part[1]}: the suite has only {of} groups of cases")
    return SuitePlan(suite, kind, cases, studies, inspection)


def _studies(suite: Suite, kind: str) -> list[tuple[str, Planned, dict[str, Any]]]:
    """The studies of a suite as they were planned."""
    found = []
    for i, entry in enumerate(suite.studies):
        where = f"suite {suite.name!r}, studies.{i}.{entry.study}"
        try:
            planned, settings = plan_of(entry.study, {"device": kind, **entry.settings})
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        found.append((entry.study, planned, settings))
    return found


def likely_kind() -> DeviceType:
    """``cuda`` if NVML knows a GPU, else ``cpu``, without importing torch."""
    from vheatbench.measure.nvml import Nvml, open_nvml

    nvml = open_nvml()
    if not isinstance(nvml, Nvml):
        return "cpu"
    boards = nvml.boards()
    nvml.close()
    return "cuda" if isinstance(boards, list) and boards else "cpu"

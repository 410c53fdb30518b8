"""``vb.run``: carry a suite out."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vheatbench.api.case import Device
from vheatbench.api.runs import read_run
from vheatbench.errors import UserError
from vheatbench.store.read import Run

if TYPE_CHECKING:
    from vheatbench.case import Case, DeviceType
    from vheatbench.run.task import Inspection, Planned
    from vheatbench.suites import Suite

    Studies = list[tuple[str, Planned, dict[str, Any]]]


def run(
    suite: str | Path | Mapping[str, Any] = "overview",
    *,
    results: str | Path = "results",
    device: Device = "auto",
    quiet: bool = False,
    **instead: Any,
) -> Run:
    """Carry a suite out, each case in a process of its own, and return its run.

    Its file lies in ``results`` and grows record by record. What is interrupted goes on by ``vheatbench run --resume
    latest``.

    Args:
        suite: the name of a suite, the path of a YAML file, or what such a file holds (docs/suites.md):
            ``{"subjects": ["vheat-t", "swin-t"], "axes": {"resolution": [224, 512]}}``.
        results: folder for the run's file.
        device: ``cpu``, ``cuda``, or ``auto``: a GPU if there is one.
        quiet: no progress on stderr.
        instead: of what the suite says: an axis (``resolution=[224, 512]``, ``dtype=["bfloat16"]``), a field of its
            policy (``budget_s=180``, ``rounds=3``), ``subjects=["vheat-t"]`` or ``ceilings=True``.

    Returns:
        The run, with gaps where a budget did not suffice. Cases that failed are records that say why.

    Raises:
        UserError: no such suite, or something in it that is not allowed.
        StoreError: the file cannot be written; what is in it is safe.
        WorkerError: no process can look at this machine.
        KeyboardInterrupt: interrupted; what was measured is in the file.
    """
    import typer

    from vheatbench.cli.execute import execute, served_devices, tasks_of
    from vheatbench.store.write import RunWriter

    began = time.monotonic()
    loaded, kind, cases, studies, inspection = _planned(suite, device, instead)
    served = served_devices(kind, device, None, inspection.cuda_devices)
    try:
        writer = RunWriter.create(results, _header(suite, loaded, cases, studies, inspection, instead))
    except ValueError as error:  # an infinite time limit, say
        raise UserError(f"suite {loaded.name!r} cannot be kept: {error}") from None
    tasks = [task for study in studies for task in tasks_of(*study, writer.path)]
    budget = loaded.policy.budget_s
    left = budget - (time.monotonic() - began) if budget is not None else None
    try:
        return read_run(execute(writer, served, tasks, quiet, left))
    except typer.Exit:  # the budget did not suffice for every case, as was said
        return read_run(writer.path)
    except SystemExit:
        raise KeyboardInterrupt from None


def _planned(
    suite: str | Path | Mapping[str, Any], device: Device, instead: dict[str, Any]
) -> tuple[Suite, DeviceType, list[Case], Studies, Inspection]:
    """The suite for the device that is there, its timed cases and studies, and what the machine says of them."""
    from vheatbench.cli.run import likely_kind
    from vheatbench.run.runner import inspect_machine

    kind: DeviceType = likely_kind() if device == "auto" else device  # type: ignore[assignment]
    while True:
        loaded = _loaded(suite, kind, instead)
        cases = loaded.plan(kind)
        inspection = inspect_machine(cases)
        if kind == "cpu" or inspection.cuda_devices:
            break
        if device == "cuda":
            note = inspection.environment.get("gpus_note") or "torch sees no CUDA device"
            raise UserError(f"CUDA was asked for, but there is none here: {note}")
        print("torch sees no CUDA device (is it a CPU build?): measuring on the CPU", file=sys.stderr)
        kind = "cpu"
    if inspection.problems:
        raise UserError("; ".join(inspection.problems))
    # studies look at models of their own
    return loaded, kind, cases, [] if "subjects" in instead else _studies(loaded, kind), inspection


def _loaded(suite: str | Path | Mapping[str, Any], kind: DeviceType, instead: dict[str, Any]) -> Suite:
    from vheatbench.suite_file import load_suite, suite_of

    if isinstance(suite, Mapping):
        return suite_of(dict(suite), kind, instead)
    return load_suite(str(suite), kind, instead, str)


def _studies(suite: Suite, kind: DeviceType) -> Studies:
    from vheatbench.cli.execute import plan_of

    found = []
    for entry in suite.studies:
        try:
            planned, settings = plan_of(entry.study, {"device": kind, **entry.settings})
        except UserError as error:
            raise UserError(f"suite {suite.name!r}, {entry.study}: {error}") from None
        found.append((entry.study, planned, settings))
    return found


def _header(
    asked: str | Path | Mapping[str, Any],
    suite: Suite,
    cases: list[Case],
    studies: Studies,
    inspection: Inspection,
    instead: dict[str, Any],
) -> Any:
    from vheatbench.run.recording import new_header

    named = dict(asked) if isinstance(asked, Mapping) else str(asked)
    words = "".join(f", {name}={value!r}" for name, value in instead.items())
    return new_header(
        suite.name,
        suite.description,
        f"vheatbench.run({named!r}{words})",
        inspection.environment,
        plan=cases + [case for _, planned, _ in studies for group in planned.groups for case in group.cases],
        studies=[{"study": name, "settings": settings} for name, _, settings in studies],
        rounds=suite.policy.rounds,
        policy=suite.policy.model_dump(mode="json"),
        reference=suite.reference.model_dump(mode="json") if suite.reference else {},
    )

"""``vb.run``: carry a suite out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vheatbench.api.case import Device
from vheatbench.api.runs import read_run
from vheatbench.store.read import Run

if TYPE_CHECKING:
    from vheatbench.case import DeviceType
    from vheatbench.suites import Suite


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

    from vheatbench.cli.suite_plan import carry_out, plan_suite

    began = time.monotonic()
    plan = plan_suite(lambda kind: _loaded(suite, kind, instead), device)
    named = dict(suite) if isinstance(suite, Mapping) else str(suite)
    words = "".join(f", {name}={value!r}" for name, value in instead.items())
    header = plan.header(f"vheatbench.run({named!r}{words})")
    try:
        return read_run(carry_out(plan, header, results, began, device, quiet=quiet))
    except typer.Exit:  # the budget did not suffice for every case, as was said
        return read_run(header.run_id, results)
    except SystemExit:
        raise KeyboardInterrupt from None


def _loaded(suite: str | Path | Mapping[str, Any], kind: DeviceType, instead: dict[str, Any]) -> Suite:
    from vheatbench.suite_file import load_suite, suite_of

    if isinstance(suite, Mapping):
        return suite_of(dict(suite), kind, instead)
    return load_suite(str(suite), kind, instead, str)

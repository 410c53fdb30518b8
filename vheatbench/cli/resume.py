"""Going on with an unfinished run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vheatbench.cli.execute import check_devices, execute, kept, plan_of, served_devices, tasks_of
from vheatbench.cli.parse import device_kind
from vheatbench.errors import UserError
from vheatbench.stop import stoppable

if TYPE_CHECKING:
    from vheatbench.run.task import StudyTask
    from vheatbench.store.write import RunWriter

RESUME = typer.Option(None, "--resume", help="Continue this unfinished run (a .partial file, its id, or 'latest').")
BESIDE_RESUME = frozenset({"resume", "out", "results", "device", "devices", "trust_pickle", "json_", "quiet"})
"""Options that may stand beside ``--resume``: they do not change what is measured."""


def refuse_beside_resume(context: typer.Context, allowed: frozenset[str] = BESIDE_RESUME) -> None:
    """Raise UserError where an option on the command line would change a run that is resumed."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in allowed and source is not None and source.name == "COMMANDLINE":
            option = f"--{name.rstrip('_').replace('_', '-')}"
            raise UserError(f"--resume continues a run as it was planned: leave {option} out")


def unfinished(name: str, results: Path, suite: str) -> Path:
    """The unfinished run of a study's command that ``name`` means; ``latest`` is the newest of its suite.

    Raises:
        UserError: there is none, or it is a run of something else, finished, or of another version.
    """
    from vheatbench.store.read import PARTIAL, begun_runs, find_run, read_run, suite_of

    if name == "latest":
        partial = (path for path in begun_runs(results) if path.suffix == PARTIAL)
        path = next((path for path in partial if suite_of(path) == suite), None)
        if path is None:
            raise UserError(f"--resume latest: there is no unfinished run of {suite!r} in {results}")
    else:
        path = find_run(name, results)
    header = read_run(path).header
    if header.suite != suite:
        raise UserError(f"{path}: a run of {header.suite!r}, not of {suite!r}")
    if path.suffix != PARTIAL:
        raise UserError(f"{path}: is finished already; 'vheatbench show {header.run_id}' shows it")
    if len(header.studies) != 1:
        raise UserError(f"{path}: was begun by another version of vheatbench: begin a new one")
    return path


def resume(
    name: str,
    results: Path,
    device: str,
    devices: str | None,
    quiet: bool,
    suite: str | None = None,
    budget: float | None = None,
    **changes: Any,
) -> Path:
    """Go on with an unfinished run, and return the finished file.

    Args:
        name: a ``.partial`` file, its id, or ``latest``.
        results: where runs are.
        device, devices: as on the command line.
        quiet: no progress.
        suite: that it must be of; None for any.
        budget: seconds that it may take from now on; by default what is left of the run's own budget.
        changes: settings of the studies that change no number. ``trust_pickle`` is False if it is not given: what a
            file was allowed when the run was begun is not what it is allowed now.

    Raises:
        UserError: it cannot be gone on with, on this machine or at all.
    """
    from vheatbench.run.runner import inspect_machine
    from vheatbench.store.alike import differing_keys
    from vheatbench.store.read import find_run
    from vheatbench.store.write import RunWriter

    check_devices(device, devices)
    path = find_run(name, results) if suite is None else unfinished(name, results, suite)
    with RunWriter.resume(path) as writer:
        header = writer.header
        if header.pairing:
            raise UserError(
                f"{writer.path} is one side of a comparison: "
                f"continue it with `vheatbench ab --resume {header.pairing['id']}`"
            )
        if not header.studies and not all(case.timed for case in header.plan):
            raise UserError(
                f"{writer.path} is an analysis, which cannot be resumed: `vheatbench report` shows what it holds; "
                f"to have it whole, start it again: {header.command}"
            )
        kind = header.plan[0].device if header.plan else "cpu"
        wanted, option = (device_kind(device)[0], "--device") if devices is None else ("cuda", "--devices")
        if wanted not in ("auto", kind):
            raise UserError(f"{writer.path} was planned for {kind}, and a case keeps its device: leave {option} out")
        with stoppable(lambda: kept(writer)):
            inspection = inspect_machine([])
            differing = differing_keys(header.environment, inspection.environment)
            if not any(case.timed for case in header.plan):
                # what is no time does not hang on threads and settings of this machine
                differing = [key for key in differing if key.startswith("packages.")]
            if differing:
                raise UserError(
                    f"{writer.path} was begun in another environment ({', '.join(differing[:3])} differ"
                    f"{'s' * (len(differing) == 1)}): its numbers would not compare; start a new run"
                )
            if kind == "cuda" and inspection.cuda_devices == 0:
                raise UserError("the run was measured on CUDA, and there is no CUDA device here")
            served = served_devices(kind, device, devices, inspection.cuda_devices)
            return execute(writer, served, _planned_again(writer, changes), quiet, budget)


def _planned_again(writer: RunWriter, changes: dict[str, Any]) -> list[StudyTask]:
    """What the studies of a run still have to do. Raises UserError where they would measure something else today."""
    before = [case for case in writer.header.plan if not case.timed]
    ids = {case.id for case in before}
    tasks = []
    for entry in writer.header.studies:
        new = {key: value for key, value in {"trust_pickle": False, **changes}.items() if key in entry.settings}
        settings = {**entry.settings, **new}
        planned, _ = plan_of(entry.study, settings)
        tasks += tasks_of(entry.study, planned, settings, writer.path)
    now = [case for task in tasks for case in task.cases]
    if writer.header.shard is None and [case.id for case in now] != [case.id for case in before]:
        changed = {
            key
            for old, new_ in zip(before, now, strict=False)
            for key in old.analysis
            if old.analysis[key] != new_.analysis.get(key)
        }
        what = " and ".join(sorted(changed)) or "what it looks at"
        raise UserError(f"{writer.path}: {what} changed since it was begun: begin a new run")
    tasks = [task for task in tasks if ids.issuperset(case.id for case in task.cases)]
    if {case.id for task in tasks for case in task.cases} != ids:
        raise UserError(f"{writer.path}: what it looks at changed since it was begun: begin a new run")
    return tasks

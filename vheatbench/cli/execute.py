"""Carrying a planned run out: what ``run`` and the studies' commands share."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vheatbench.cli import exits
from vheatbench.cli.output import command_line
from vheatbench.cli.parse import device_kind, device_numbers, shard
from vheatbench.errors import StoreError, UserError, WorkerError
from vheatbench.stop import stoppable
from vheatbench.text import some

if TYPE_CHECKING:
    from vheatbench.run.task import Planned, StudyTask
    from vheatbench.store.schema import Header, Record
    from vheatbench.store.write import RunWriter

TIMEOUT = typer.Option(3600.0, "--timeout", help="Seconds that one worker process may take.")
MEMORY_LIMIT = typer.Option(None, "--memory-limit", help="GiB of host memory that a worker may take.")
DEVICES = typer.Option(None, "--devices", help="GPUs to use side by side: 0,1 or all. One worker each.")
SHARD = typer.Option(None, "--shard", help="i/n: only the i-th of n parts; see 'merge'.")


@dataclass(frozen=True)
class How:
    """How a study is carried out, whatever it measures."""

    results: Path
    device: str = "auto"
    devices: str | None = None
    timeout: float = 3600.0
    memory_limit: float | None = None
    shard: str | None = None
    quiet: bool = False

    def policy(self) -> dict[str, Any]:
        """For a run's header. Raises UserError for limits that are none."""
        from pydantic import ValidationError

        from vheatbench.suites import SuitePolicy

        try:
            policy = SuitePolicy(timeout_s=self.timeout, memory_limit_gib=self.memory_limit)
        except ValidationError as error:
            option = "--timeout" if error.errors()[0]["loc"] == ("timeout_s",) else "--memory-limit"
            raise UserError(f"{option}: give a finite number greater than 0") from None
        return policy.model_dump(mode="json")


def check_devices(device: str, devices: str | None) -> None:
    """Raise UserError for names of devices that are wrong, or do not go together."""
    kind, index = device_kind(device)
    if devices is not None:
        device_numbers(devices)
        if kind == "cpu":
            raise UserError("--devices names GPUs: leave --device cpu out")
        if index is not None:
            raise UserError(f"--devices {devices} and --device {device} name GPUs both: leave one out")


def served_devices(kind: str, device: str, devices: str | None, there: int) -> list[str]:
    """The devices to measure on, of ``there`` GPUs. Raises UserError for one that is not there."""
    if kind == "cpu":
        return ["cpu"]
    indices = [device_kind(device)[1] or 0] if devices is None else device_numbers(devices) or list(range(there))
    if max(indices) >= there:
        raise UserError(f"GPU {max(indices)} does not exist: torch sees {there} (0 to {there - 1})")
    return [f"cuda:{i}" for i in indices]


def measure_study(
    study: str,
    settings: dict[str, Any],
    suite: str,
    description: str,
    how: How,
    check: Callable[[], None] = lambda: None,
) -> Path:
    """Plan a study, begin its run, and carry it out.

    Args:
        study: its name in ``vheatbench.studies``.
        settings: what it is asked for, as JSON.
        suite: name of the run.
        description: of the run.
        how: where, and within which limits.
        check: called when it is planned and nothing is measured yet.

    Returns:
        The finished run file.

    Raises:
        UserError: something is wrong with what was asked for.
        WorkerError: the model cannot be looked at.
    """
    from vheatbench.present.terminal import print_warnings
    from vheatbench.run.recording import new_header
    from vheatbench.store.write import RunWriter

    check_devices(how.device, how.devices)
    part, policy = shard(how.shard), how.policy()
    with stoppable(lambda: "nothing was measured yet"):
        kind = "cuda" if how.devices is not None else device_kind(how.device)[0]
        planned, settings = plan_of(study, {**settings, "device": kind})
        served = served_devices(settings["device"], how.device, how.devices, planned.cuda_devices)
        groups = planned.groups if part is None else planned.groups[part[0] - 1 :: part[1]]
        if part is not None and not groups:
            raise UserError(f"--shard {part[0]}/{part[1]}: there are only {len(planned.groups)} parts")
        check()
        print_warnings(planned.notes)
        header = new_header(
            suite,
            description,
            command_line(),
            planned.environment,
            plan=[case for group in groups for case in group.cases],
            studies=[{"study": study, "settings": settings}],
            policy=policy,
            shard=how.shard,
        )
        writer = RunWriter.create(how.results, header)
    tasks = tasks_of(study, planned.model_copy(update={"groups": groups}), settings, writer.path)
    return execute(writer, served, tasks, how.quiet)


def plan_of(study: str, settings: dict[str, Any]) -> tuple[Planned, dict[str, Any]]:
    """A study as it was planned, and its settings with the device that it found."""
    from vheatbench.run.runner import plan_study
    from vheatbench.studies import MEASURED

    if study not in MEASURED:
        raise UserError(f"there is no study {study!r}; there are {', '.join(MEASURED)}")
    planned = plan_study(MEASURED[study].module, settings)
    return planned, {**settings, "device": planned.groups[0].cases[0].device}


def tasks_of(name: str, planned: Planned, settings: dict[str, Any], path: Path) -> list[StudyTask]:
    """What the runner is to do for a study whose run is at ``path``."""
    from vheatbench.run.task import StudyTask
    from vheatbench.studies import MEASURED

    study = MEASURED[name]
    return [
        StudyTask(
            study=study.module,
            label=group.label,
            cases=group.cases,
            settings=settings,
            run_path=path,
            resumable=study.resumable,
        )
        for group in planned.groups
    ]


def execute(
    writer: RunWriter, served: list[str], studies: Sequence[StudyTask], quiet: bool, budget: float | None = None
) -> Path:
    """Measure what is missing, and return the finished file.

    ``budget``: seconds that it may take from now on; where not given, what its records leave of the run's own budget.

    Raises:
        UserError: they leave nothing of it.
        Exit: with the code of a case that failed, where the budget did not suffice for every case once.
    """
    from vheatbench.analysis.group_ratios import uncertainty
    from vheatbench.analysis.time_spent import time_line, used_s
    from vheatbench.numbers import clock
    from vheatbench.present.progress import display
    from vheatbench.run.exports import remove_exports
    from vheatbench.run.progress import RunProgress
    from vheatbench.run.runner import Runner, items_of
    from vheatbench.run.schedule import Schedule
    from vheatbench.store.read import read_run
    from vheatbench.suites import SuitePolicy, groups_of

    began = time.monotonic()
    with writer, stoppable(lambda: kept(writer)):
        header = writer.header
        timed = [case for case in header.plan if case.timed]
        records = read_run(writer.path).records if writer.count else []
        policy = SuitePolicy.model_validate(header.policy)
        if budget is None and policy.budget_s is not None:
            budget = policy.budget_s - used_s(records)
            if budget <= 0:
                spent = f"its budget of {policy.budget_s:g} s is spent"
                raise UserError(f"{writer.path}: {spent}: give it more with --budget 3m")
        # what takes no turns can be spread over all devices
        groups = groups_of(timed) if policy.turns or budget is not None else [[case] for case in timed]
        schedule = Schedule(groups, header.rounds, studies, writer.done, records, budget, uncertainty)
        items, done = items_of(schedule, writer.done)
        with display(quiet) as shown:
            runner = Runner(writer, policy, served, RunProgress(items, done, shown, budget))
            try:
                new = runner.run(schedule)
            except (UserError, WorkerError):
                print(f"stopped: {kept(writer)}", file=sys.stderr)
                raise
            except OSError as error:  # no room for temporary files, no more processes
                writer.check()
                resume = f"{_command(header)} --resume {shlex.quote(str(writer.path))}"
                raise StoreError(
                    f"{error}; the {writer.count} records so far are safe: continue with `{resume}`"
                ) from error
        elapsed = time.monotonic() - began
        if not quiet and new:
            print(time_line(new, elapsed), file=sys.stderr)
        missing = [case for case in header.plan if (case.id, 0) not in writer.done]
        if missing:
            words = some([case.label for case in missing], 3)
            print(f"the budget ended after {clock(elapsed)}, without {words}\n{kept(writer)}", file=sys.stderr)
            raise typer.Exit(exits.FAILED)
        path = writer.finish(elapsed)
        remove_exports(path)
        return path


def kept(writer: RunWriter) -> str:
    """Of a run that was stopped, and how it goes on. Raises StoreError where its file is gone."""
    from vheatbench.store.read import PARTIAL

    writer.check()
    if writer.path.suffix != PARTIAL:
        return f"the run is finished: {writer.path}"
    header = writer.header
    total = len(header.planned)
    return (
        f"{min(writer.count, total)} of {total} cases are safe in {writer.path}\n"
        f"continue with: {_command(header)} --resume {shlex.quote(str(writer.path))}"
    )


OWN_COMMANDS = frozenset({"erf", "eval", "profile", "heat diffuse", "heat diffusivity", "heat kernel"})


def _command(header: Header) -> str:
    """The command that goes on with a run and shows it as it would have."""
    own = header.suite.replace("-", " ", 1)
    alone = len(header.studies) == 1 and own in OWN_COMMANDS
    trust = any(entry.settings.get("trust_pickle") for entry in header.studies)
    return f"vheatbench {own if alone else 'run'}{' --trust-pickle' * (trust and alone)}"


def say_skipped(records: Sequence[Record]) -> None:
    """The last line of a run on stderr, where cases were skipped: how many, and why the first was."""
    skipped = [record for record in records if record.status == "skipped"]
    if skipped:
        first = skipped[0]
        was = "was" if len(skipped) == 1 else "were"
        reason = f"{first.case.label}: {first.reason}"
        print(f"{len(skipped)} of {len(records)} cases {was} skipped, not measured: {reason}", file=sys.stderr)


def exit_code(records: Sequence[Record]) -> int:
    """0, or 6 when a case failed, ran over its time, or nothing at all was measured."""
    bad = any(record.status in ("failed", "timeout") for record in records)
    return exits.FAILED if bad or not any(record.status == "ok" for record in records) else exits.OK

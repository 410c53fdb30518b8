"""``vheatbench track``: the history of runs, its trends and where they changed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from vheatbench.analysis.changepoint import ChangePoint
    from vheatbench.analysis.history import Trend
    from vheatbench.store.history import History, HistoryEntry

app = typer.Typer(
    help="Keep the history of runs, by branch and machine, and show where it changed.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RESULTS = typer.Option(Path("results"), help="Folder of run files with history.jsonl in it, or that file.")
BRANCH = typer.Option(None, help="Only this branch.")
MACHINE = typer.Option(None, help="Only this machine: the beginning of its fingerprint, or a part of its name.")
CASE = typer.Option(None, help="Only cases with this in their label, a pattern with *, or one case id.")
METRIC = typer.Option("latency_s", help="Metrics, separated by commas; patterns such as 'peak_*'; 'all'.")


@app.command("add")
def add(
    runs: list[str] = typer.Argument(None, help="Run files, ids or starts of names, or 'latest'."),
    pytest_benchmark: list[Path] = typer.Option(None, metavar="FILE", help="A JSON file of pytest-benchmark."),
    branch: str | None = typer.Option(None, help="Branch of the code; default what the run or the checkout says."),
    commit: str | None = typer.Option(None, help="Commit of the code; default what the run says."),
    results: Path = RESULTS,
) -> None:
    """Add runs to the history, each once. Prints the history's file."""
    from vheatbench.analysis.history import entries_of
    from vheatbench.errors import UserError
    from vheatbench.present.terminal import print_warnings
    from vheatbench.store.history import add_to_history, history_path
    from vheatbench.store.pytest_benchmark import read_pytest_benchmark
    from vheatbench.store.read import find_run, read_run

    if not runs and not pytest_benchmark:
        raise UserError("nothing to add: name a run (or 'latest'), or a file with --pytest-benchmark")
    path = history_path(results)
    entries: list[HistoryEntry] = []
    for name in runs or []:
        run = read_run(find_run(name, path.parent))
        print_warnings(run.problems)
        entries += entries_of(run, branch, commit)
    for file in pytest_benchmark or []:
        entry, problems = read_pytest_benchmark(file, branch, commit)
        print_warnings(problems)
        entries.append(entry)
    entries = [entry if entry.branch or branch is not None else _with_branch(entry) for entry in entries]
    done = add_to_history(path, entries)
    print_warnings(done.problems)
    print_warnings(f"{entry.file} ({entry.device}) is in the history already: nothing added" for entry in done.known)
    for entry in done.entries:
        where = f"branch {entry.branch}" if entry.branch else "no branch (name one with --branch)"
        code = entry.commit[:12] + (" with changes" if entry.dirty else "") if entry.commit else "no commit"
        words = f"added {entry.file}: {len(entry.cases)} cases, {where}, {code}, {entry.machine} {entry.fingerprint}"
        print(words, file=sys.stderr)
    print(path)


@app.command("show")
def show(
    branch: str | None = BRANCH,
    machine: str | None = MACHINE,
    metric: str = METRIC,
    case: str | None = CASE,
    results: Path = RESULTS,
    json_: bool = typer.Option(False, "--json", help="Print the trends with all their points as JSON."),
) -> None:
    """Print trends: the last value against the usual one, and where the level changed.

    Changes are warnings and never an exit code: the values come from different sessions.
    """
    from vheatbench.errors import UserError
    from vheatbench.present.terminal import print_warnings

    history = _read(results)
    trends = _trends(history, branch, machine, metric, case)
    if not trends:
        raise UserError(f"nothing in {history.path} matches: it holds {_contents(history)}")
    if json_:
        from vheatbench.cli.output import print_json

        print_json({"trends": [_as_json(trend) for trend in trends], "problems": history.problems})
    else:
        _print_tables(trends)
    print_warnings(
        f"{trend.label} on {trend.machine}: {trend.metric} {_words(trend, change)}"
        for trend in trends
        for change in trend.changes
        if trend.worsens(change)
    )


@app.command("export")
def export(
    format_: str = typer.Option("otava", "--format", help="otava: CSV for Apache Otava."),
    output: Path | None = typer.Option(None, "--output", "-o", help="The file; default stdout."),
    branch: str | None = BRANCH,
    machine: str | None = MACHINE,
    metric: str = METRIC,
    case: str | None = CASE,
    results: Path = RESULTS,
) -> None:
    """Write the history for another tool: a row per run, of one branch on one machine."""
    from vheatbench.analysis.history import select
    from vheatbench.cli.export import deliver
    from vheatbench.errors import UserError
    from vheatbench.report.exports import otava_csv

    if format_ != "otava":
        raise UserError(
            f"--format {format_!r}: the history is exported as 'otava'; for one run see `vheatbench export`"
        )
    history = _read(results)
    entries = select(history.entries, branch=branch, machine=machine, case=case)
    if not entries:
        raise UserError(f"nothing in {history.path} matches: it holds {_contents(history)}")
    names = sorted({trend.metric for trend in _trends(history, branch, machine, metric, case)})
    deliver(otava_csv(entries, names or [metric]), output)


def _read(results: Path) -> History:
    from vheatbench.present.terminal import print_warnings
    from vheatbench.store.history import read_history

    history = read_history(results)
    print_warnings(history.problems)
    return history


def _trends(history: History, branch: str | None, machine: str | None, metric: str, case: str | None) -> list[Trend]:
    from vheatbench.analysis.history import trends_of
    from vheatbench.cli.parse import comma_list

    metrics = None if metric == "all" else comma_list(metric)
    return trends_of(history.entries, branch=branch, machine=machine, metrics=metrics, case=case)


def _contents(history: History) -> str:
    branches = sorted({entry.branch or "(none)" for entry in history.entries})
    machines = sorted({f"{entry.machine} {entry.fingerprint}" for entry in history.entries})
    metrics = sorted({name for entry in history.entries for name in entry.metrics})
    some = [", ".join(words[:8]) + (" ..." if len(words) > 8 else "") for words in (branches, machines, metrics)]
    return f"{len(history.entries)} entries; branches: {some[0]}; machines: {some[1]}; metrics: {some[2]}"


def _with_branch(entry: HistoryEntry) -> HistoryEntry:
    """With the branch checked out here, if its commit is the entry's."""
    from vheatbench.measure.checkout import git

    here = entry.commit and git("rev-parse", "HEAD") == entry.commit
    name = git("rev-parse", "--abbrev-ref", "HEAD") if here else None
    return entry.model_copy(update={"branch": name}) if name not in (None, "", "HEAD") else entry


def _as_json(trend: Trend) -> dict[str, Any]:
    from dataclasses import asdict

    changes = [
        {"index": c.index, "when": trend.points[c.index].when, "commit": trend.points[c.index].commit,
         "before": c.before, "after": c.after, "p": c.p, "worse": trend.worsens(c)}
        for c in trend.changes
    ]  # fmt: skip
    return {**asdict(trend), "usual": trend.usual, "against_usual": trend.against_usual, "changes": changes}


def _print_tables(trends: list[Trend]) -> None:
    """One table per branch and machine."""
    from vheatbench.present.terminal import Column, print_table

    columns = (
        Column("case", "name"),
        Column("metric", "name"),
        *map(Column, ("runs", "last", "usual", "against usual")),
        Column("changes", "notes"),
    )
    groups: dict[tuple[str, str, str], list[Trend]] = {}
    for trend in trends:
        groups.setdefault((trend.branch, trend.fingerprint, trend.device), []).append(trend)
    for (branch, fingerprint, _), group in groups.items():
        print_table(
            columns,
            map(_row, group),
            title=f"branch {branch or '(none)'} on {group[0].machine} {fingerprint}",
            caption="usual: median since the last change; a change has 4 points before and 6 after it",
        )


def _row(trend: Trend) -> list[str]:
    from vheatbench.metrics import info_of
    from vheatbench.numbers import MISSING, percent, with_unit

    info = info_of(trend.metric, trend.unit)
    last = with_unit(trend.values[-1], info) if trend.points else MISSING
    if trend.status != "ok":
        last = f"{trend.status} (before: {last})" if trend.points else trend.status
    usual = with_unit(trend.usual, info) if trend.usual is not None else MISSING
    against = percent(trend.against_usual) if trend.against_usual is not None else MISSING
    changes = "; ".join(_words(trend, change) for change in trend.changes[-3:])
    more = f"{len(trend.changes) - 3} earlier; " if len(trend.changes) > 3 else ""
    return [trend.label, trend.metric, str(len(trend.points)), last, usual, against, more + changes]


def _words(trend: Trend, change: ChangePoint) -> str:
    point = trend.points[change.index]
    commit = f" at {point.commit[:10]}" if point.commit else ""
    chance = f", p={change.p:.2g}" if change.p else ""
    return f"{trend.size_of(change)}{commit} ({point.when[:10]}{chance})"

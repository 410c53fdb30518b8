"""``vheatbench report``: one HTML page, Markdown or LaTeX from one or more runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vheatbench.cli.options import results_option

if TYPE_CHECKING:
    from vheatbench.present.parts import Section
    from vheatbench.store.read import Run

FORMATS = ("html", "md", "tex")


def report(
    runs: list[str] = typer.Argument(
        None, help="Run files, ids or starts of names; default the newest run of every suite on this machine."
    ),
    output: Path | None = typer.Option(
        None,
        "--output",
        "-o",
        help="The file; default reports/<run>.html, of several this-machine.html; standard output for md and tex.",
    ),
    format_: str = typer.Option("html", "--format", help="html: the page; md: Markdown; tex: LaTeX with booktabs."),
    compare: tuple[str, str] | None = typer.Option(
        None, metavar="BASE HEAD", help="Show the verdict of HEAD against BASE; they are the runs if none is named."
    ),
    margin: list[str] = typer.Option(
        None, help="With --compare: worsening that is tolerated, as in `vheatbench compare`. Repeatable."
    ),
    history: Path | None = typer.Option(None, help="Show the trends of this history, a file or a folder of runs."),
    results: Path = results_option("Folder of run files and of the measured noise floor."),
) -> None:
    """Write a self-contained HTML page: what it says in short, charts, tables, warnings, environment."""
    from vheatbench.errors import UserError
    from vheatbench.files import write_file
    from vheatbench.store.read import find_measured, newest_of_each_suite, read_run

    if format_ not in FORMATS:
        raise UserError(f"--format {format_!r} is not known: {', '.join(FORMATS)}")
    if format_ != "html" and (compare or history):
        raise UserError("--compare and --history are for the page: leave out --format, or use `vheatbench compare`")
    if margin and not compare:
        raise UserError("--margin is of a verdict: name what is compared with --compare BASE HEAD")
    sides = [read_run(find_measured(name, results)) for name in compare or ()]
    paths = [find_measured(name, results) for name in runs or []]
    found = [read_run(path) for path in (paths if paths or sides else newest_of_each_suite(results))] or sides
    if format_ == "html":
        verdict = [_verdict(sides[0], sides[1], margin or [], results)] if sides else []
        _write_page(found, verdict, history, output)
        return
    from vheatbench.report.latex import latex_of
    from vheatbench.report.markdown import markdown_of

    text = markdown_of(found) if format_ == "md" else latex_of(found)
    if output is None:
        sys.stdout.write(text)
        return
    write_file(output, text)
    print(output)


def _verdict(base: Run, head: Run, margin: list[str], results: Path) -> Section:
    """By the same settings as `vheatbench ab` and `vheatbench compare`: see settings_for."""
    from vheatbench.cli.compare import parse_margins
    from vheatbench.report.verdict_section import verdict_section
    from vheatbench.verdict.compare import compare_runs
    from vheatbench.verdict.settings import settings_for

    settings = settings_for([base], [head], results, margins=parse_margins(margin))
    return verdict_section(compare_runs([base], [head], settings), "verdict")


def _write_page(runs: list[Run], sections: list[Section], history: Path | None, output: Path | None) -> None:
    from vheatbench.report.page import write_report

    if history is not None:
        from vheatbench.present.terminal import print_warnings
        from vheatbench.report.history_section import history_sections
        from vheatbench.store.history import read_history

        found = read_history(history)
        print_warnings(found.problems)
        trends = history_sections(found, "history")
        if not trends:
            print_warnings([f"{found.path}: no case has two runs yet, so there is no trend to show"])
        sections += trends
    named = runs[0].path.name.split(".")[0] if len(runs) == 1 or sections else "this-machine"
    target = output or Path("reports") / f"{named}.html"
    write_report(runs, target, sections)
    print(target)
    print(f"{target.stat().st_size / 1024:.0f} KiB, one file, no network needed", file=sys.stderr)

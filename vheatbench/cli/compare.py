"""``vheatbench compare``: did anything get slower, larger, or stop fitting?"""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vheatbench.cli import exits
from vheatbench.cli.options import results_option
from vheatbench.errors import UserError
from vheatbench.text import one_line

if TYPE_CHECKING:
    from vheatbench.store.read import Run
    from vheatbench.verdict.comparison import Comparison, Conclusion

EXITS: dict[Conclusion, int] = {
    "pass": exits.OK,
    "regressed": exits.REGRESSED,
    "inconclusive": exits.INCONCLUSIVE,
    "incomparable": exits.INCOMPARABLE,
    "failed": exits.FAILED,
}


def compare(
    base: str = typer.Argument(help="The baseline: a run file, id, or suite; or several, as a comma list or a glob."),
    head: str = typer.Argument(help="What is compared with it, named alike."),
    margin: list[str] = typer.Option(
        None, help="Worsening that is tolerated (5%); of one metric: --margin peak_memory_bytes=20%. Repeatable."
    ),
    metric: str | None = typer.Option(None, help="Compare only these metrics, separated by commas."),
    confidence: float | None = typer.Option(None, help="Of the intervals (0.99)."),
    location: str | None = typer.Option(
        None, help="What stands for a round: p25 (the default), min, p10 or median of its samples."
    ),
    everything: bool = typer.Option(False, "--all", help="Also show what did not change."),
    json_: bool = typer.Option(False, "--json", help="Print the verdict as JSON."),
    markdown: str | None = typer.Option(None, help="Also write it as markdown to this file; - for stdout."),
    verdict: Path | None = typer.Option(None, help="Also write the JSON to this file, for example verdict.json."),
    allow_missing_baseline: bool = typer.Option(False, help="No baseline ends 0 instead of 4."),
    allow_missing_cases: bool = typer.Option(False, help="Cases that only the base has do not end in 4."),
    results: Path = results_option("Folder of run files and of the measured noise floor."),
) -> None:
    """Compare two runs, or two sets of runs, and say what got worse.

    Runs of `vheatbench ab` are compared by what it was asked for, where nothing else is given here.

    Ends 0: nothing worse; 3: regressed; 4: inconclusive or no baseline; 5: not comparable; 6: the head failed.
    """
    from vheatbench.cli.parse import comma_list
    from vheatbench.present.terminal import print_warnings
    from vheatbench.verdict.compare import compare_runs
    from vheatbench.verdict.settings import settings_for

    margins = parse_margins(margin or [])
    if json_ and markdown == "-":
        raise UserError("--json and --markdown - both want stdout: name a file for one of them")
    heads = _runs(head, results)
    bases, absent = _baseline(base, results)
    settings = settings_for(
        bases,
        heads,
        results,
        margins=margins,
        metrics=comma_list(metric),
        confidence=confidence,
        location=location,
        allow_missing=allow_missing_cases,
    )
    if absent:
        print_warnings([absent])
    comparison = compare_runs(bases, heads, settings)
    code = EXITS[comparison.outcome]
    if not bases and allow_missing_baseline:
        code = exits.OK
    present(comparison, code, json_=json_, markdown=markdown, verdict=verdict, everything=everything)
    if code:
        raise typer.Exit(code)


def present(
    comparison: Comparison,
    code: int,
    *,
    json_: bool = False,
    markdown: str | None = None,
    verdict: Path | None = None,
    everything: bool = False,
) -> None:
    """Print a comparison and write its files. ``code`` is the exit code that they carry.

    Raises:
        UserError: a file cannot be written.
        StoreError: the disk is full; files that were there before stay.
    """
    import json

    from vheatbench.cli.output import print_json
    from vheatbench.files import write_file
    from vheatbench.present.terminal import print_warnings
    from vheatbench.verdict.text import as_dict
    from vheatbench.verdict.text import markdown as as_markdown

    document = {**as_dict(comparison), "exit_code": code}
    if verdict is not None:
        write_file(verdict, json.dumps(document, indent=2, allow_nan=False) + "\n")
    if markdown is not None and markdown != "-":
        write_file(markdown, as_markdown(comparison))
    if json_:
        print_json(document)
    elif markdown == "-":
        print(as_markdown(comparison), end="")
    else:
        _print(comparison, everything)
    print_warnings(comparison.warnings)


def parse_margins(texts: list[str]) -> dict[str, float]:
    """``5%`` or ``0.05`` under the empty name, ``METRIC=5%`` under the metric's. Raises UserError."""
    found = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            value = float(number.strip().removesuffix("%")) / (100 if number.strip().endswith("%") else 1)
        except ValueError:
            raise UserError(f"--margin {text!r}: give a share such as 5% or 0.05, or METRIC=5%") from None
        if not 0 <= value <= 10:
            raise UserError(f"--margin {text!r}: give a share such as 5% or 0.05 (5 alone would be 500 %)")
        found[name.strip()] = value
    return found


def _baseline(text: str, results: Path) -> tuple[list[Run], str]:
    """The runs of the base, and why there are none."""
    from vheatbench.store.read import MissingRunError

    try:
        return _runs(text, results), ""
    except MissingRunError as error:
        return [], str(error)


def _runs(text: str, results: Path) -> list[Run]:
    from vheatbench.cli.parse import comma_list
    from vheatbench.store.history import HISTORY_NAME
    from vheatbench.store.read import PARTIAL, MissingRunError, find_run, read_run

    found = []
    for name in comma_list(text) or []:
        if Path(name).is_file() or not any(sign in name for sign in "*?["):
            found.append(read_run(find_run(name, results)))
            continue
        paths = sorted(glob.glob(name)) or sorted(map(str, results.glob(name)) if not Path(name).is_absolute() else [])
        runs = [Path(path) for path in paths if path.endswith((".jsonl", PARTIAL)) and Path(path).name != HISTORY_NAME]
        if not runs:
            raise MissingRunError(f"no run file matches {name!r}, here or in {results}")
        found += [read_run(path) for path in runs]
    return found


def _print(comparison: Comparison, everything: bool) -> None:
    from vheatbench.present.terminal import Column, ColumnRole, print_line, print_table
    from vheatbench.verdict.text import HEADINGS, absences, detectable, headline, rows, unchanged

    roles: dict[str, ColumnRole] = {"case": "name", "metric": "name", "verdict": "words", "notes": "notes"}
    found = rows(comparison, everything)
    if found:
        print_table([Column(heading, roles.get(heading, "number")) for heading in HEADINGS], found)
    left = 0 if everything else unchanged(comparison)
    if left:
        print_line(f"{left} exact, neutral or fitted values without a change are not shown (--all shows them).")
    for line in absences(comparison):
        print_line(f"not compared: {one_line(line)}")
    print_line(detectable(comparison))
    print_line(headline(comparison), "bold")
    for reason in comparison.reasons:
        print_line(f"- {reason}")

"""Runs as LaTeX: a booktabs table per group, numbers with the digits that their intervals allow."""

from __future__ import annotations

from collections.abc import Sequence

from vheatbench import numbers
from vheatbench.analysis.groups import ChartGroup, groups_of
from vheatbench.analysis.outcomes import Outcome, outcomes_of
from vheatbench.analysis.series import Series
from vheatbench.metrics import MetricInfo, columns, info_of, names
from vheatbench.present.parts import StudyTable
from vheatbench.store.read import Run
from vheatbench.studies import exported_tables

_ESCAPED = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "×": r"$\times$", "±": r"$\pm$", "−": r"$-$",
    "\u202f": r"\,", "·": r"$\cdot$", "²": "$^2$", "π": r"$\pi$",
}  # fmt: skip


def latex_of(runs: Sequence[Run]) -> str:
    """One ``table`` per group of records of each run, to be used with ``\\usepackage{booktabs}``.

    Every cell is ``value ± uncertainty``, the uncertainty being the longer side of the interval; deterministic numbers
    stand alone.
    """
    tables = [table for run in runs for table in _tables(run)]
    head = "% Made by vheatbench. Needs \\usepackage{booktabs}; \\usepackage[T1]{fontenc} for quotation marks.\n"
    return head + "\n".join(tables)


def _tables(run: Run) -> list[str]:
    groups = groups_of(run.records)
    studies = exported_tables(outcomes_of(run.records))
    return [
        *(_table(run, group, number) for number, group in enumerate(groups)),
        *(_study(run, *study, len(groups) + number) for number, study in enumerate(studies)),
    ]


def escaped(text: str) -> str:
    """Text from outside as LaTeX that shows it: one line, no command of its own."""
    return "".join(_ESCAPED.get(character, character if character.isprintable() else " ") for character in text)


def _table(run: Run, group: ChartGroup, number: int) -> str:
    series = {metric: {one.subject: one for one in group.series(metric)} for metric in _columns(group)}
    axis = next(iter(series["latency_s"].values())).axis if series.get("latency_s") else None
    if axis is None:
        return f"% {escaped(group.title)}: nothing was measured\n"
    infos = {metric: info_of(group.named(metric)) for metric in series}
    heads = [axis.subject, axis.heading, *(info.heading for info in infos.values())]
    subjects = list(dict.fromkeys(subject for found in series.values() for subject in found))
    rows = []
    for subject in subjects:
        sizes = {p.resolution: None for found in series.values() if subject in found for p in found[subject].points}
        for size in sorted(sizes, key=lambda size: (size[0] * size[1], size)):
            cells = [_cell(found.get(subject), size, infos[metric]) for metric, found in series.items()]
            name = f"{size[0]}" if size[0] == size[1] else f"{size[0]}×{size[1]}"
            rows.append(f"{' & '.join([escaped(subject), escaped(name), *cells])} \\\\")
        rows.append("\\midrule")
    notes = "$\\pm$: the longer side of the interval of the median. Random weights."
    return _tabular(run, group.title, notes, number, f"lr{'r' * len(series)}", heads, rows[:-1])


def _study(run: Run, table: StudyTable, outcomes: Sequence[Outcome], number: int) -> str:
    heads, names = table.named([outcome.records[0] for outcome in outcomes])
    shown = columns(table.role, outcomes)
    rows = []
    for outcome, own in zip(outcomes, names, strict=True):
        cells = [numbers.latex_of(outcome.points.get(info.name), info) for info in shown]
        rows.append(f"{' & '.join([*map(escaped, own), *cells])} \\\\")
    notes, aligned = "$\\pm$: the longer side of the interval.", f"{'l' * len(heads)}{'r' * len(shown)}"
    return _tabular(run, table.title, notes, number, aligned, [*heads, *(info.heading for info in shown)], rows)


def _tabular(
    run: Run, title: str, notes: str, number: int, columns: str, heads: Sequence[str], rows: Sequence[str]
) -> str:
    caption = (
        f"{escaped(run.header.suite)} on {escaped(run.device_name)}, {escaped(title)}; "
        f"{escaped(run.header.created)}, run {escaped(run.header.run_id)}. {notes}"
    )
    body = "\n".join(rows)
    return (
        f"\\begin{{table}}\n\\centering\n\\caption{{{caption}}}\n\\label{{tab:{_label(run)}-{number}}}\n"
        f"\\begin{{tabular}}{{{columns}}}\n\\toprule\n{' & '.join(escaped(head) for head in heads)} \\\\\n"
        f"\\midrule\n{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def _columns(group: ChartGroup) -> list[str]:
    """Metrics that the group has; images per second are a model's."""
    wanted = [name for name in names("paper") if group.kind == "model" or name != "throughput_images_per_s"]
    return [name for name in wanted if any(one.points for one in group.series(name))]


def _cell(series: Series | None, size: tuple[int, int], info: MetricInfo) -> str:
    points = series.points if series is not None else ()
    return numbers.latex_of(next((p for p in points if p.resolution == size), None), info)


def _label(run: Run) -> str:
    return "".join(character for character in run.header.run_id if character.isascii() and character.isalnum())

"""Runs as LaTeX: a booktabs table per group, numbers with the digits that their intervals allow."""

from __future__ import annotations

from collections.abc import Sequence

from vheatbench import numbers
from vheatbench.analysis.groups import Group, groups_of
from vheatbench.analysis.outcomes import outcomes_of
from vheatbench.analysis.series import Point, Series
from vheatbench.report.charts import LOOKS
from vheatbench.report.studies_table import AnalysisTable, analysis_tables
from vheatbench.store.read import Run

COLUMNS = ("latency_s", "throughput_images_per_s", "peak_memory_bytes", "macs", "energy_per_image_j")

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
    analyses = analysis_tables(outcomes_of(run.records))
    return [
        *(_table(run, group, number) for number, group in enumerate(groups)),
        *(_analysis(run, table, len(groups) + number) for number, table in enumerate(analyses)),
    ]


def escaped(text: str) -> str:
    """Text from outside as LaTeX that shows it: one line, no command of its own."""
    return "".join(_ESCAPED.get(character, character if character.isprintable() else " ") for character in text)


def _table(run: Run, group: Group, number: int) -> str:
    series = {metric: {one.subject: one for one in group.series(metric)} for metric in _columns(group)}
    axis = next(iter(series["latency_s"].values())).axis if series.get("latency_s") else None
    if axis is None:
        return f"% {escaped(group.title)}: nothing was measured\n"
    looks = {metric: LOOKS[group.named(metric)] for metric in series}
    heads = [axis.subject, axis.heading, *(f"{look.title} ({look.axis})" for look in looks.values())]
    subjects = list(dict.fromkeys(subject for found in series.values() for subject in found))
    rows = []
    for subject in subjects:
        sizes = {p.resolution: None for found in series.values() if subject in found for p in found[subject].points}
        for size in sorted(sizes, key=lambda size: (size[0] * size[1], size)):
            cells = [_cell(found.get(subject), size, looks[metric].factor) for metric, found in series.items()]
            name = f"{size[0]}" if size[0] == size[1] else f"{size[0]}×{size[1]}"
            rows.append(f"{' & '.join([escaped(subject), escaped(name), *cells])} \\\\")
        rows.append("\\midrule")
    notes = "$\\pm$: the longer side of the interval of the median. Random weights."
    return _tabular(run, group.title, notes, number, f"lr{'r' * len(series)}", heads, rows[:-1])


def _analysis(run: Run, table: AnalysisTable, number: int) -> str:
    heads = [*table.heads, *(heading for _, heading, _ in table.columns)]
    rows = []
    for row in table.rows:
        cells = [_analysed(point, factor) for point, (_, _, factor) in zip(row.points, table.columns, strict=True)]
        rows.append(f"{' & '.join([*map(escaped, row.names), *cells])} \\\\")
    columns = f"{'l' * len(table.heads)}{'r' * len(table.columns)}"
    return _tabular(run, table.title, "$\\pm$: the longer side of the interval.", number, columns, heads, rows)


def _analysed(point: Point | None, factor: float) -> str:
    if point is None:
        return "--"
    # counts are whole, and what rounding leaves of nothing is tiny
    return _number(point, factor) if point.low != point.high else f"{point.value * factor:.4g}"


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


def _columns(group: Group) -> list[str]:
    """Metrics that the group has; images per second are a model's."""
    wanted = [name for name in COLUMNS if group.kind == "model" or name != "throughput_images_per_s"]
    return [name for name in wanted if any(one.points for one in group.series(name))]


def _cell(series: Series | None, size: tuple[int, int], factor: float) -> str:
    point = next((p for p in series.points if p.resolution == size), None) if series is not None else None
    return "--" if point is None else _number(point, factor)


def _number(point: Point, factor: float) -> str:
    low = point.low * factor if point.low is not None else None
    high = point.high * factor if point.high is not None else None
    value, uncertainty = numbers.uncertain(point.value * factor, low, high)
    if not uncertainty:
        return value.replace("\u202f", r"\,")
    return f"${value} \\pm {uncertainty}$"


def _label(run: Run) -> str:
    return "".join(character for character in run.header.run_id if character.isascii() and character.isalnum())

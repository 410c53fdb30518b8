"""``vb.report``: one page of one or several runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vheatbench.api.runs import RunLike, runs_of
from vheatbench.errors import UserError


def report(
    runs: RunLike | Sequence[RunLike] = "latest",
    path: str | Path | None = None,
    *,
    results: str | Path = "results",
) -> Path:
    """Write the page of one or several runs, and return its path.

    Args:
        runs: see :data:`vheatbench.api.runs.RunLike`.
        path: of the page; ``.md`` and ``.tex`` give its tables as Markdown and LaTeX. By default
            ``reports/NAME-OF-THE-RUN.html``, of several ``reports/this-machine.html``.
        results: folder that names are looked for in.

    Raises:
        UserError: no such run, a run without records, or a path that cannot be written.
        StoreError: the disk is full; a page that was there before stays.
    """
    from vheatbench.files import write_file
    from vheatbench.report.latex import latex_of
    from vheatbench.report.markdown import markdown_of
    from vheatbench.report.page import write_report

    found = runs_of(runs, results)
    named = found[0].path.name.split(".")[0] if len(found) == 1 else "this-machine"
    target = Path(path) if path is not None else Path("reports") / f"{named}.html"
    if target.suffix in (".html", ".htm"):
        write_report(found, target)
    elif target.suffix in (".md", ".tex"):
        write_file(target, markdown_of(found) if target.suffix == ".md" else latex_of(found))
    else:
        raise UserError(f"{target}: a report is .html, .md or .tex")
    return target

"""``vheatbench suites``: which suites there are."""

from __future__ import annotations

import typer


def suites(json_: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """List the suites, with their number of cases on a CPU and on a GPU."""
    from vheatbench.errors import UserError
    from vheatbench.suite_file import list_suites, load_suite

    rows: list[dict[str, str | int | None]] = []
    for name, path in sorted(list_suites().items()):
        try:
            cpu, cuda = load_suite(str(path), "cpu"), load_suite(str(path), "cuda")
        except UserError as error:
            rows.append({"name": name, "description": f"invalid: {error}", "cases_cpu": None, "cases_cuda": None})
            continue
        description = " ".join(cpu.description.split())
        rows.append({"name": name, "description": description, "cases_cpu": cpu.size, "cases_cuda": cuda.size})
    if json_:
        from vheatbench.cli.output import print_json

        print_json(rows)
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    for heading in ("suite", "cases (CPU)", "cases (GPU)", "what it measures"):
        table.add_column(heading, justify="right" if "cases" in heading else "left")
    for row in rows:
        table.add_row(str(row["name"]), str(row["cases_cpu"]), str(row["cases_cuda"]), escape(str(row["description"])))
    Console(highlight=False).print(table)

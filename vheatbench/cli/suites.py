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
    from vheatbench.present.terminal import Column, print_table

    print_table(
        (Column("suite", "name"), Column("cases (CPU)"), Column("cases (GPU)"), Column("what it measures", "notes")),
        [[str(row[key]) for key in ("name", "cases_cpu", "cases_cuda", "description")] for row in rows],
    )

"""``vheatbench models``: which subjects there are."""

from __future__ import annotations

import sys

import typer


def models(
    pattern: str = typer.Argument("*", help="Part of a name, or a wildcard pattern such as 'swin*224'."),
    json_: bool = typer.Option(False, "--json", help="Print as JSON."),
) -> None:
    """List what can be measured: the operators (op/...), vHeat, and everything in timm."""
    from vheatbench.errors import UserError
    from vheatbench.subjects.catalog import list_subjects

    found = list_subjects(pattern)
    if not found:
        raise UserError(f"no model matches {pattern!r}; 'vheatbench models' lists all")
    if json_:
        from vheatbench.cli.output import print_json

        print_json([{"name": name, "alias": alias or None} for name, alias in found])
        return
    width = max(len(name) for name, _ in found)
    for name, alias in found:
        print(f"{name:{width}}  {alias}".rstrip())
    print(
        "before a name with maps at strides 4 to 32: maskrcnn:NAME (detector), upernet:NAME (segmenter); "
        "your own: package.module:name",
        file=sys.stderr,
    )

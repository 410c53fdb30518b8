"""``vheatbench env``: what the machine is, as records keep it."""

from __future__ import annotations

import typer


def env(json_: bool = typer.Option(False, "--json", help="Print as JSON.")) -> None:
    """Show the fingerprint of machine and software that every run keeps."""
    from vheatbench.measure.environment import environment

    found = environment()
    if json_:
        from vheatbench.cli.output import print_json

        print_json(found)
        return
    for key, value in found.items():
        _print(key, value, 0)


def _print(key: str, value: object, depth: int) -> None:
    indent = "  " * depth
    if isinstance(value, dict):
        print(f"{indent}{key}:" + ("" if value else " none"))
        for name, inner in value.items():
            _print(str(name), inner, depth + 1)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for i, inner in enumerate(value):
            _print(f"{key} {i}", inner, depth)
    else:
        text = "none" if value in (None, [], "") else value
        print(f"{indent}{key}: {text}")

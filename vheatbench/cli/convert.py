"""``vheatbench convert``: a vHeat checkpoint as safetensors for one input size."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import typer

from vheatbench.cli.parse import check_choice
from vheatbench.errors import UserError


def convert(
    checkpoint: Path = typer.Argument(help="An official checkpoint, a plain state dict or safetensors."),
    output: Path | None = typer.Option(
        None, "--output", "-o", help="File to write.  [default: CHECKPOINT's name, .safetensors, beside it]"
    ),
    model: str = typer.Option("vheat-t", help="The vHeat whose weights these are."),
    resolution: str | None = typer.Option(None, help="For example 512 or 800x1280 (height x width); default its own."),
    rule: str = typer.Option("bicubic", help="How frequency embeddings are resized: bicubic, zeropad."),
    use: str = typer.Option("model", help="Which set of weights, where the file has both: model, model_ema."),
    num_classes: int | None = typer.Option(None, min=0, help="Classes of the head, if not the model's own."),
    trust_pickle: bool = typer.Option(
        False, "--trust-pickle", help="Run the code that the checkpoint may contain: official files need it."
    ),
    force: bool = typer.Option(False, "--force", help="Replace an existing file."),
    json_: bool = typer.Option(False, "--json", help="Print what was written as JSON on stdout."),
) -> None:
    """Write a vHeat checkpoint as safetensors: one set of weights, made for one input size, safe to load."""
    from vheatbench.suites import parse_resolution

    check_choice("--rule", rule, ("bicubic", "zeropad"))
    check_choice("--use", use, ("model", "model_ema"))
    try:
        size = None if resolution is None else parse_resolution(resolution)
    except ValueError as error:
        raise UserError(f"--resolution: {error}") from None
    # models and libraries print what they like; stdout is for the answer
    with contextlib.redirect_stdout(sys.stderr):
        from vheatbench.studies.accuracy.conversion import convert as write_converted

        done = write_converted(
            checkpoint,
            output,
            model=model,
            resolution=size,
            rule=rule,  # type: ignore[arg-type]
            use=use,  # type: ignore[arg-type]
            num_classes=num_classes,
            trust_pickle=trust_pickle,
            force=force,
        )
    if json_:
        from vheatbench.cli.output import print_json

        print_json(
            {
                "path": str(done.path),
                "sha256": done.sha256,
                "parameters": done.parameters,
                "metadata": done.metadata,
                "resized": done.loaded.resized,
            }
        )
        return
    print(done.path)
    meta = done.metadata
    print(
        f"{meta['model']} for {meta['resolution']}, {meta['num_classes']} classes, {done.parameters:,} numbers\n"
        f"from {done.loaded}",
        file=sys.stderr,
    )
    for name, how in done.loaded.resized.items():
        print(f"resized {name}: {how}", file=sys.stderr)

"""``vheatbench export-model``: a model as a file for ONNX Runtime, OpenVINO and others, checked by running it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import typer

from vheatbench.cli import exits
from vheatbench.cli.parse import check_choice
from vheatbench.errors import UserError


def export_model(
    model: str = typer.Option("vheat-t", help="An alias, a timm name or package.module:name."),
    output: Path = typer.Option(
        Path("model.onnx"), "--output", "-o", help="File to write: .onnx, or .xml for OpenVINO (weights in .bin)."
    ),
    resolution: str | None = typer.Option(None, help="For example 512 or 800x1280 (height x width); default its own."),
    batch: int = typer.Option(1, min=1, help="Images per step."),
    dtype: str = typer.Option("float32", help="float32, or int8: layers quantised statically with photographs."),
    mode: str = typer.Option("infer", help="infer (deploy form), forward (training form)."),
    dynamic: bool = typer.Option(False, "--dynamic", help="Leave batch, height and width open, as far as they can be."),
    weights: Path | None = typer.Option(None, help="A checkpoint; without one the weights are random."),
    num_classes: int | None = typer.Option(None, min=0, help="Classes of the head, if not the model's own."),
    trust_pickle: bool = typer.Option(
        False, "--trust-pickle", help="Run the code that the checkpoint may contain: official files need it."
    ),
    force: bool = typer.Option(False, "--force", help="Replace existing files."),
    json_: bool = typer.Option(False, "--json", help="Print what was written as JSON on stdout."),
) -> None:
    """Write a model as ONNX or for OpenVINO, and check the file by running it."""
    from vheatbench.case import Case, kind_of
    from vheatbench.cli.parse import resolution_of

    check_choice("--dtype", dtype, ("float32", "int8"))
    check_choice("--mode", mode, ("infer", "forward"))
    size = None if resolution is None else resolution_of(resolution)
    if kind_of(model) != "model":
        raise UserError(f"{model!r} is no model: 'vheatbench models' lists what can be exported")
    # models and libraries print what they like; stdout is for the answer
    with contextlib.redirect_stdout(sys.stderr):
        from vheatbench.engines.model_file import AgreementError, ExportError, check_target, write_model
        from vheatbench.subjects.catalog import find_subject

        check_target(output, force)
        options = {} if num_classes is None else {"num_classes": num_classes}
        case = Case(
            subject=model,
            resolution=size or find_subject(model).own_size(options),
            batch=batch,
            dtype=dtype,  # type: ignore[arg-type]
            mode=mode,  # type: ignore[arg-type]
            engine="openvino" if output.suffix == ".xml" else "onnxruntime",
            dynamic=dynamic,
            options=options,
        )
        try:
            done = write_model(case, output, weights, trust_pickle, force)
        except (ExportError, AgreementError) as error:
            print(f"{model} {case.size}: {error}", file=sys.stderr)
            raise typer.Exit(exits.FAILED) from None
    if json_:
        from vheatbench.cli.output import print_json

        print_json(
            {
                "files": [str(path) for path in done.files],
                "sha256": done.sha256,
                "bytes": done.exported.bytes,
                "nodes": done.exported.nodes,
                "export_s": done.exported.export_s,
                "open": list(done.exported.open),
                "form": done.form,
                "weights": done.weights,
                "input_shape": list(done.input_shape),
                "checked_by": done.checked_by,
                "error": done.error,
            }
        )
        return
    for path in done.files:
        print(path)
    shape = "x".join(map(str, done.input_shape))
    opened = f", open: {', '.join(done.exported.open)}" if done.exported.open else ""
    print(
        f"{model}, {done.form}, input {shape}{opened}, {done.exported.nodes} nodes, weights: {done.weights}\n"
        f"run by {done.checked_by}: {done.error:.2g} away from the model, relative to its largest output",
        file=sys.stderr,
    )

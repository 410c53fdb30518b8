"""A model written as a file for an inference engine, and checked by running it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vheatbench.case import Case
from vheatbench.engines.agreement import TOLERANCE, AgreementError, disagreement, leaves
from vheatbench.engines.export import (
    INSTALL,
    Exported,
    ExportError,
    export_to,
    exporter_missing,
    open_dims,
    quantized_to,
)
from vheatbench.engines.int8 import int8_missing
from vheatbench.errors import UserError
from vheatbench.files import sha256_of, whole_file, write_error
from vheatbench.subjects.catalog import build, find_subject
from vheatbench.subjects.vheat import VHeat
from vheatbench.subjects.weights import load_weights

SUFFIXES = {".onnx": "ONNX", ".xml": "OpenVINO"}


@dataclass(frozen=True)
class Written:
    """What was written, and what running it gave."""

    files: tuple[Path, ...]
    """The one that was asked for first; weights that stand beside it after it."""
    sha256: str
    """Of the first."""
    exported: Exported
    weights: str
    """In words."""
    form: str
    input_shape: tuple[int, ...]
    checked_by: str
    """Engine and version."""
    error: float
    """Largest difference from the model's own output, relative to its largest value."""


def write_model(
    case: Case, target: Path, weights: Path | None = None, trust_pickle: bool = False, force: bool = False
) -> Written:
    """Export a case's model to a file, run the file, and keep it if it computes what the model does.

    Args:
        case: the model, its size, batch and precision (float32 or int8).
        target: ``.onnx``, or ``.xml`` for OpenVINO, whose weights go into ``.bin`` beside it.
        weights: a checkpoint; random weights from seed 0 where there is none.
        trust_pickle: run the code that the checkpoint's pickle may contain.
        force: replace existing files.

    Raises:
        UserError: another suffix, a file that exists, a package that is missing, weights that do not fit.
        ExportError: the exporter does not take the model.
        AgreementError: the file computes something else; nothing is written.
        StoreError: the disk is full.
    """
    check_target(target, force)
    for reason in (exporter_missing(), _runner_missing(target), int8_missing() if case.dtype == "int8" else None):
        if reason is not None:
            raise UserError(reason)
    module, form, words, shape = _model(case, weights, trust_pickle)
    x = torch.randn(int(case.batch), *shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = leaves(module(x))
    with tempfile.TemporaryDirectory(prefix="vheatbench-export-") as folder:
        # under its own name, for a file of weights beside it is found by that
        file = Path(folder) / target.with_suffix(".onnx").name
        exported = export_to(file, module, (x,), open_dims(case) if case.dynamic else None)
        if case.dtype == "int8":
            apart = Path(folder) / "int8"
            apart.mkdir()
            exported = quantized_to(apart / file.name, exported, x)
        file = exported.path
        if target.suffix == ".xml":
            import openvino

            openvino.save_model(openvino.Core().read_model(file), file.with_suffix(".xml"), compress_to_fp16=False)
            made = [file.with_suffix(".xml"), file.with_suffix(".bin")]
        else:
            made = [path for path in (file, file.with_name(f"{file.name}.data")) if path.exists()]
        engine, run = _runner(made[0])
        error = disagreement(run(x), expected)
        allowed = TOLERANCE.get(case.dtype)
        if allowed is not None and not error <= allowed:
            raise AgreementError(f"{engine} runs it, but {error:.3g} away from the model, and {allowed:g} is allowed")
        places = tuple(target.with_name(path.name) for path in made)
        for source, place in reversed(list(zip(made, places, strict=True))):
            _copy(source, place, force)
    return Written(places, sha256_of(places[0]), exported, words, form, tuple(x.shape), engine, error)


def check_target(target: Path, force: bool) -> None:
    """Raises UserError for a name that says no format, and for a file that is not to be replaced."""
    if target.suffix not in SUFFIXES:
        raise UserError(f"-o {target}: the name must end in .onnx, or in .xml for OpenVINO")
    if not target.parent.is_dir():
        raise UserError(f"-o {target}: there is no folder {target.parent}")
    beside = target.with_suffix(".bin") if target.suffix == ".xml" else target.with_name(f"{target.name}.data")
    for path in (target, beside):
        if path.is_dir() or (path.exists() and not force):
            raise UserError(f"{path}: exists already: add --force to replace it, or give another name with -o")


def _model(case: Case, weights: Path | None, trust_pickle: bool) -> tuple[nn.Module, str, str, tuple[int, ...]]:
    """The module in float32 and its deploy form, what form and weights it has, and the shape of an image."""
    subject = find_subject(case.subject)
    if weights is None:
        built = build(case)
        return built.model.eval().requires_grad_(False), built.facts["form"], built.facts["weights"], built.input_shape
    built = build(case.model_copy(update={"mode": "forward"}))
    loaded = load_weights(built.model, weights, trust_pickle=trust_pickle)
    model, form = built.model.eval().requires_grad_(False), built.facts["form"]
    if case.mode == "infer" and isinstance(model, VHeat):
        model.deploy(case.resolution)
        form = "deploy form"
    return model, form, f"{loaded} of {subject.full_name}", built.input_shape


def _runner_missing(target: Path) -> str | None:
    if target.suffix == ".xml":
        return None if util.find_spec("openvino") else "openvino is not installed (pip install 'vheatbench[openvino]')"
    there = util.find_spec("onnxruntime") or util.find_spec("openvino")
    return None if there else f"nothing is installed that could run it, to check it ({INSTALL})"


def _runner(file: Path) -> tuple[str, Callable[[Tensor], tuple[Tensor, ...]]]:
    """What runs the file here, and its call: ONNX Runtime, or OpenVINO for its own files and where that is missing."""
    if file.suffix == ".onnx" and util.find_spec("onnxruntime") is not None:
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return f"ONNX Runtime {onnxruntime.__version__}", lambda x: tuple(
            torch.from_numpy(one) for one in session.run(None, {name: x.numpy()})
        )
    import openvino

    compiled: Any = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return f"OpenVINO {metadata.version('openvino')}", lambda x: tuple(
        torch.from_numpy(one.copy()) for one in compiled([x.numpy()]).to_tuple()
    )


def _copy(source: Path, target: Path, force: bool) -> None:
    """All of it under the final name, or nothing."""
    try:
        with source.open("rb") as content, whole_file(target, replace=force) as file:
            shutil.copyfileobj(content, file, 1 << 20)
    except OSError as error:
        raise write_error(target, error) from error


__all__ = ["AgreementError", "ExportError", "Written", "check_target", "write_model"]

"""A module as ONNX, by torch's own exporter, kept by its content so that it is exported once in a run."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vheatbench.case import Case
from vheatbench.engines.agreement import TOLERANCE
from vheatbench.engines.session import Number, Session, Setting
from vheatbench.text import one_line

PACKAGES = ("torch", "onnx", "onnxscript")
"""What the exported model depends on besides its weights and its code."""
INSTALL = "pip install 'vheatbench[onnx]'"
SINGLE_FILE_BYTES = 1.5 * 2**30
"""Weights above this are kept beside the model's file: one of more than 2 GiB is none."""


class ExportError(Exception):
    """torch's exporter does not take the model."""


@dataclass(frozen=True)
class Exported:
    """A model as ONNX on disk."""

    path: Path
    export_s: float
    bytes: int
    nodes: int
    open: tuple[str, ...] = ()
    """Dimensions of the input that were left open."""
    int8: bool = False

    def numbers(self) -> dict[str, Number]:
        """The metrics of the export."""
        how = "torch.onnx.export(dynamo=True)" + " and static quantisation by ONNX Runtime" * self.int8
        return {
            "export_s": Number(self.export_s, "s", f"{how}, wall clock; later rounds take the file of the first"),
            "exported_bytes": Number(self.bytes, "bytes", f"size of what {how} writes, weights included"),
            "exported_nodes": Number(self.nodes, "nodes", f"nodes of the graph that {how} gives", deterministic=True),
        }


def exporter_missing() -> str | None:
    """Why nothing can be exported here; None where it can."""
    lacking = [name for name in ("onnx", "onnxscript") if util.find_spec(name) is None]
    return f"{' and '.join(lacking)} not installed ({INSTALL})" if lacking else None


@contextlib.contextmanager
def exported(module: nn.Module, inputs: tuple[Tensor, ...], setting: Setting) -> Iterator[Exported]:
    """The module as ONNX, for as long as the block lasts or the setting's folder is there.

    Raises:
        ExportError: torch's exporter does not take it; the reason in one line.
    """
    if setting.folder is None:
        with tempfile.TemporaryDirectory(prefix="vheatbench-onnx-") as folder:
            yield _exported(module, inputs, setting.case, Path(folder))
        return
    setting.folder.mkdir(parents=True, exist_ok=True)
    yield _exported(module, inputs, setting.case, setting.folder)


def _exported(module: nn.Module, inputs: tuple[Tensor, ...], case: Case, folder: Path) -> Exported:
    name = content_key(module, inputs, case)
    with _locked(folder / f"{name}.lock"):
        opened = open_dims(case) if case.dynamic else {}
        found = _kept(folder / f"{name}.onnx", lambda target: export_to(target, module, inputs, opened))
        if case.dtype == "int8":
            source = found
            found = _kept(folder / f"{name}-int8.onnx", lambda target: quantized_to(target, source, inputs[0]))
    return found


def _kept(target: Path, make: Callable[[Path], Exported]) -> Exported:
    """What stands in the folder; made where it does not."""
    about = target.with_suffix(".json")
    if not about.exists():
        found = make(target)
        unfinished = about.with_suffix(".partial")
        unfinished.write_text(json.dumps({**asdict(found), "path": target.name}))
        unfinished.rename(about)  # last: where it is, the model is whole
    facts = json.loads(about.read_text())
    return Exported(**{**facts, "path": target, "open": tuple(facts["open"])})


def open_dims(case: Case) -> dict[int, str]:
    """The dimensions of an input that ``dynamic`` leaves open."""
    return {0: "batch", 2: "height", 3: "width"} if case.kind == "model" else {0: "batch"}


def quantized_to(target: Path, source: Exported, example: Tensor) -> Exported:
    """An exported model with int8 layers, see :mod:`vheatbench.engines.int8`."""
    import onnx

    from vheatbench.engines.int8 import quantize

    started = time.monotonic()
    quantize(source.path, target, example)
    nodes = len(onnx.load(target, load_external_data=False).graph.node)
    taken = source.export_s + time.monotonic() - started
    return Exported(target, taken, _size(target), nodes, source.open, int8=True)


def export_to(
    target: Path, module: nn.Module, inputs: tuple[Tensor, ...], opened: Mapping[int, str] | None = None
) -> Exported:
    """Export a module to a file. Raises ExportError.

    ``opened``: dimensions of every input that are left open, as far as the model allows, by what they are called.
    """
    opened = opened or {}
    started = time.monotonic()
    program = _program(module, inputs, opened)
    for node in program.model.graph:  # folders of this machine
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    weights = sum(t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers()))
    apart = weights > SINGLE_FILE_BYTES
    program.save(target, external_data=apart)
    elapsed = time.monotonic() - started
    graph = program.model.graph
    shape = graph.inputs[0].shape if graph.inputs else ()
    left = tuple(opened.get(i, str(i)) for i, side in enumerate(shape) if not isinstance(side, int))
    return Exported(target, elapsed, _size(target), len(list(graph)), left)


def _size(path: Path) -> int:
    """Bytes of an exported model, with the weights that are kept beside it."""
    apart = path.with_name(f"{path.name}.data")
    return path.stat().st_size + (apart.stat().st_size if apart.exists() else 0)


def _program(module: nn.Module, inputs: tuple[Tensor, ...], opened: Mapping[int, str]) -> Any:
    shapes = None
    if opened:
        # an exporter takes a size of 1 for a constant
        inputs = tuple(torch.cat([x, x]) if x.shape[0] == 1 else x for x in inputs)
        shapes = tuple({i: torch.export.Dim.AUTO for i in opened if i < x.ndim} for x in inputs)
    try:
        with torch.no_grad(), warnings.catch_warnings(), _quiet():
            warnings.simplefilter("ignore")
            return torch.onnx.export(module, inputs, dynamo=True, verbose=False, dynamic_shapes=shapes)
    except Exception as error:
        raise ExportError(reason_of(error)) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # the exporter prints what it does on stdout, whatever it is told
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def reason_of(error: BaseException) -> str:
    """The exporter's reason in one line: of the error that all others were raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {one_line(str(error).strip() or 'no reason given')}"


def content_key(module: nn.Module, inputs: tuple[Tensor, ...], case: Case) -> str:
    """What an exported model is named by: weights, code, shapes, and the versions that it was made with."""
    digest = hashlib.sha256()
    about = {
        "subject": case.subject,
        "options": case.options,
        "fused_attention": case.fused_attention,
        "mode": case.mode,
        "dynamic": case.dynamic,
        "inputs": [(tuple(x.shape), str(x.dtype), x.device.type) for x in inputs],
        "versions": {name: _version(name) for name in PACKAGES},
    }
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    for package in sorted({type(part).__module__.partition(".")[0] for part in module.modules()} - {"torch"}):
        digest.update(_code(package))
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(flat.numpy().data)
    return digest.hexdigest()[:24]


def _code(package: str) -> bytes:
    """What stands for the source of a package that a module's classes are from."""
    module = sys.modules.get(package)
    file = getattr(module, "__file__", None)
    if file is None:
        return package.encode()
    top = Path(file)
    files = sorted(top.parent.rglob("*.py")) if top.name == "__init__.py" else [top]
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.digest()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Workers on several devices may want the same model at once: the first exports it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def exported_session(
    call: Callable[..., Any], facts: dict[str, Any], model: Exported, built: Number, module: nn.Module, setting: Setting
) -> Session:
    """The session of an engine that was given an exported model.

    Args:
        call: runs it on inputs that it holds (``call.held``).
        facts: of the engine, for the record.
        model: as it was exported.
        built: seconds that the engine took to make a session of it.
        module: that it was exported from, which says what int8 loses.
        setting: that it was built by.
    """
    from vheatbench.engines.int8 import error_numbers

    held, case = call.held, setting.case  # type: ignore[attr-defined]
    lost = error_numbers(call, held[0], module) if case.dtype == "int8" else {}
    return Session(
        call,
        facts,
        {**model.numbers(), **lost, "session_s": built},
        tolerance=TOLERANCE.get(case.dtype),
        compared=f"the model run eagerly in {str(held[0].dtype).removeprefix('torch.')}",
    )

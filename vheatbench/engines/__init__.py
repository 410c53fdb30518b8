"""How a subject is run: eagerly, by torch.compile, or as ONNX by an inference engine.

An engine is one file with three functions, and a line in :data:`MODULES`:

- ``check(case)``: raises UserError for what the engine cannot do on any machine;
- ``missing(case)``: why it cannot run here, in one line; None where it can;
- ``build(module, inputs, setting)``: a :class:`vheatbench.engines.session.Session`, whose ``call`` takes those inputs.
"""

from __future__ import annotations

import importlib
from typing import Any, get_args

from vheatbench.case import EXPORTED, Case, Engine
from vheatbench.errors import UserError

MODULES: dict[Engine, str] = {
    "eager": "eager",
    "compiled": "compiled",
    "compiled-freezing": "compiled",
    "compiled-cudagraphs": "compiled",
    "compiled-max-autotune": "compiled",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
}
"""Engine to the file that it is in."""
assert set(MODULES) == set(get_args(Engine))


def engine_of(case: Case) -> Any:
    """The module of a case's engine."""
    return importlib.import_module(f"vheatbench.engines.{MODULES[case.engine]}")


def check_engine(case: Case) -> None:
    """Raises UserError for what the case's engine cannot do on any machine."""
    if case.dtype == "int8" and not case.exported:
        raise UserError(f"int8 is quantised by an engine that takes ONNX: give --engine {EXPORTED[0]} or {EXPORTED[1]}")
    if case.dynamic and case.engine == "eager":
        raise UserError("engine eager takes any size: dynamic is for engines that compile or export the model")
    if case.exported:
        if case.trains or not case.timed:
            raise UserError(f"engine {case.engine} is for inference: not in mode {case.mode}")
        if case.batch == "largest":
            raise UserError(f"engine {case.engine} takes the model exported for one batch: give a number, not largest")
        if case.memory_format != "contiguous":
            raise UserError(
                f"engine {case.engine} chooses its own layout: leave memory_format {case.memory_format} out"
            )
        if case.dtype == "int8" and case.kind != "model":
            raise UserError("int8 is quantised with photographs: of models, not of operators")
    engine_of(case).check(case)


def check_present(case: Case) -> None:
    """Raises UserError where the case's engine is not on this machine, with the reason."""
    reason = engine_of(case).missing(case)
    if reason is not None:
        raise UserError(f"engine {case.engine} cannot run here: {reason}")

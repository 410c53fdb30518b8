"""Static quantisation of an exported model to int8, calibrated with photographs, and the error that it makes.

Layers with weights (linear ones and convolutions) are quantised, their weights by channel. Products of two activations
stay in float, and so does everything between a heat operator's layers: its transforms sum over a whole image and its
decay spans orders of magnitude, so that one scale for all frequencies leaves most of them at zero.
"""

from __future__ import annotations

import ast
import logging
import warnings
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vheatbench.engines.photographs import batches, pictures
from vheatbench.engines.session import Number

LAYERS = ("Conv", "MatMul", "Gemm")
"""Operations that layers with weights become."""
HEAT = "HeatOperator"
"""End of the name of the classes whose own products are transforms."""
CALIBRATION = 16
"""Batches of photographs that ranges are taken from, at most."""
TESTED = 8
"""Batches of held-out photographs that the error is measured with, at most."""


def int8_missing() -> str | None:
    """Why nothing can be quantised here; None where it can."""
    if util.find_spec("onnxruntime") is None:
        return "int8 is calibrated by onnxruntime, which is not installed (pip install 'vheatbench[onnx]')"
    return None


def quantize(source: Path, target: Path, example: Tensor, everything: bool = False) -> int:
    """Write an exported model with int8 layers, and return how many nodes were quantised.

    Args:
        source: the model in float32.
        target: file to write.
        example: an input, for its shape (batch, C, H, W).
        everything: the transforms and decays of heat operators too, and every other product.
    """
    import onnx
    from onnxruntime import quantization

    model = onnx.load(source)
    weights = {one.name for one in model.graph.initializer}
    operations = (*LAYERS, "Mul") if everything else LAYERS
    chosen = [
        node.name
        for node in model.graph.node
        if node.op_type in operations and (everything or _is_layer(node, weights))
    ]
    with warnings.catch_warnings(), _silent():
        warnings.simplefilter("ignore")
        quantization.quantize_static(
            model,
            target,
            _Reader(model.graph.input[0].name, example),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(operations),
            nodes_to_quantize=chosen,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            use_external_data_format=source.with_name(f"{source.name}.data").exists(),
        )
    return len(chosen)


def _is_layer(node: Any, weights: set[str]) -> bool:
    """Whether a product is a layer's: with a weight, and not one of a heat operator's transforms."""
    return any(name in weights for name in node.input) and not _class_of(node).endswith(HEAT)


def _class_of(node: Any) -> str:
    """The class of the module that a node is from, as torch's exporter notes it; empty where it does not."""
    notes = {note.key: note.value for note in node.metadata_props}
    classes = ast.literal_eval(notes.get("pkg.torch.onnx.class_hierarchy", "[]"))
    return str(classes[-2]) if len(classes) > 1 else ""


class _Reader:
    """Photographs by the name of the model's input, as the quantiser asks for them."""

    def __init__(self, name: str, example: Tensor) -> None:
        images = pictures(tuple(example.shape[1:]), held_out=False)
        self._batches: Iterator[Tensor] = iter(batches(images, example.shape[0], CALIBRATION))
        self._name = name

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        """The next batch; None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch.numpy()}


class _silent:
    """Without what the quantiser logs at its root logger."""

    def __enter__(self) -> None:
        self._level = logging.root.level
        logging.root.setLevel(logging.ERROR)

    def __exit__(self, *error: object) -> None:
        logging.root.setLevel(self._level)


def error_numbers(call: Callable[..., Any], held: Tensor, module: nn.Module) -> dict[str, Number]:
    """What int8 costs in accuracy, by running the engine on photographs that nothing was calibrated with.

    Args:
        call: the engine's, which reads ``held`` and gives its outputs; the first one counts.
        held: its input, which is written over and restored.
        module: the model in float32.
    """
    kept = held.clone()
    apart, whole, same, count = 0.0, 0.0, 0, 0
    images = pictures(tuple(held.shape[1:]), held_out=True)
    with torch.inference_mode():
        for batch in batches(images, held.shape[0], TESTED):
            held.copy_(batch)
            ours, theirs = call(held)[0].double(), _first(module(batch)).double()
            apart += float((ours - theirs).square().sum())
            whole += float(theirs.square().sum())
            same += int((ours.argmax(1) == theirs.argmax(1)).sum())
            count += ours.argmax(1).numel()
        held.copy_(kept)
    where = "on photographs that nothing was calibrated with, against the model run eagerly in float32"
    return {
        "int8_error": Number(
            (apart / whole) ** 0.5, "share", f"root mean square error of the output over its root mean square, {where}"
        ),
        "int8_agreement": Number(
            same / count, "share", f"share with the same largest output, {where}", direction="higher"
        ),
    }


def _first(output: Any) -> Tensor:
    from vheatbench.engines.agreement import leaves

    return leaves(output)[0]

"""Which of several ways to compute the same this processor takes: by rule, or by trial where that is clearly wrong.

Two libraries multiply matrices on a CPU, oneDNN and what torch calls for its own linear layers (MKL, mostly),
and which is faster depends on the processor and on its instruction set, by up to a factor of three. So every
question has a default by instruction set, and the first to ask it in a process has the ways timed in turns, on one
small problem. Another way is taken only where it beats the default by :data:`MARGIN` in almost every round: neighbours
on a shared machine then change no answer, and several processes on one machine give the same one.

``VHEATBENCH_TUNE=0`` leaves out the trials: the defaults hold.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from vheatbench.stats import median
from vheatbench.subjects import onednn

MARGIN = 1.25
"""How many times as fast as the default another way must be; what is nearer makes no difference that counts."""
ROUNDS = 9
"""Of a trial: after two rounds to warm up. All but two have to agree."""

Ways = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Choice:
    """The answer to one question, and why."""

    way: str
    default: str
    gains: Mapping[str, float]
    """How many times as fast as the default each other way was, the median of the rounds; empty without a trial."""

    def __str__(self) -> str:
        # without the gains, which differ from process to process: equal answers are equal in every record
        if self.way != self.default:
            return f"{self.way} (by trial, not the default {self.default})"
        return f"{self.way} (the default, {'kept by trial' if self.gains else 'not tried'})"


def inference_linear() -> str:
    """How float32 linear layers without gradients are computed.

    ``inside``: oneDNN, with the activation within the product. ``after``: oneDNN, the activation in place after it.
    ``torch``: torch's own product, the activation in place after it. ``inside`` is the default with AVX-512, where it
    saves a pass over the map; with AVX2 oneDNN's activations are slower than torch's.
    """
    return _answer("linear layers", torch.get_num_threads()).way


def training_product() -> str:
    """How float32 products of a training step are computed: ``onednn`` or ``torch``, the default."""
    return _answer("training products", torch.get_num_threads()).way


def transform() -> str:
    """How the cosine transform of a float32 map of many tokens is computed.

    ``batched``: batched products between two buffers, torch's own, the default. ``turned``: oneDNN's linear layers.
    """
    return _answer("transforms", torch.get_num_threads()).way


def describe(trains: bool) -> dict[str, str]:
    """What was chosen for training or for inference, and why; for records. What is not decided yet is decided now."""
    questions = ("training products",) if trains else ("linear layers", "transforms")
    return {question: str(_answer(question, torch.get_num_threads())) for question in questions}


def forget() -> None:
    """Ask anew the next time, for tests."""
    _answer.cache_clear()


def wide_instructions() -> bool:
    """Whether torch and oneDNN compute with AVX-512 here; both can be told not to (``ONEDNN_MAX_CPU_ISA``)."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "AVX512")).upper()
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and ("AVX512" in limit or limit in ("ALL", "DEFAULT"))


def compare(default: str, ways: Ways, clock: Callable[[], float] = time.perf_counter) -> Choice:
    """Time the ways in turns and choose; see the module.

    Args:
        default: one of the ways.
        ways: by name, what to time.
        clock: in seconds.
    """
    times: dict[str, list[float]] = {way: [] for way in ways}
    for i in range(2 + ROUNDS):
        for way in ways if i % 2 else reversed(list(ways)):
            started = clock()
            ways[way]()
            if i >= 2:
                times[way].append(clock() - started)
    ratios = {
        way: [usual / own for usual, own in zip(times[default], taken, strict=True)]
        for way, taken in times.items()
        if way != default
    }
    gains = {way: median(each) for way, each in ratios.items()}
    better = [way for way, each in ratios.items() if sum(ratio >= MARGIN for ratio in each) >= ROUNDS - 2]
    return Choice(max(better, key=gains.__getitem__, default=default), default, gains)


@functools.lru_cache(maxsize=32)
def _answer(question: str, threads: int) -> Choice:
    default, build = _QUESTIONS[question]
    chosen = default()
    if not onednn.works(torch.float32):
        return Choice(_WITHOUT_ONEDNN[question], _WITHOUT_ONEDNN[question], {})
    if os.environ.get("VHEATBENCH_TUNE", "1") == "0":
        return Choice(chosen, chosen, {})
    # the answer is kept, so nothing around the first question may change it, nor may whoever counts hear of it
    with (
        _disable_current_modes(), torch.inference_mode(False), torch.no_grad(), torch.device("cpu"),
        torch.autocast("cpu", enabled=False),
    ):  # fmt: skip
        return compare(chosen, build(torch.Generator().manual_seed(0)))


def _linear_ways(generator: torch.Generator) -> Ways:
    """The first layer of an MLP in the third stage of a vHeat-T, the most frequent of its large products."""
    x, weight, bias = _problem(196, 384, 1536, generator)
    packed = onednn.pack(weight)
    return {
        "inside": lambda: onednn.linear(x, packed, bias, "gelu"),
        "after": lambda: onednn.activate_(onednn.linear(x, packed, bias), "gelu"),
        "torch": lambda: onednn.activate_(F.linear(x, weight, bias), "gelu"),
    }


def _training_ways(generator: torch.Generator) -> Ways:
    """The three products of a linear layer in a training step."""
    x, weight, bias = _problem(512, 384, 1536, generator)
    grad = torch.randn(512, 1536, generator=generator)

    def by_onednn() -> None:
        onednn.linear(x, weight, bias)
        onednn.linear(grad, weight.t(), None)
        onednn.linear(grad.t(), x.t(), None)

    def by_torch() -> None:
        torch.addmm(bias, x, weight.t())
        torch.mm(grad, weight)
        torch.mm(grad.t(), x)

    return {"onednn": by_onednn, "torch": by_torch}


def _transform_ways(generator: torch.Generator) -> Ways:
    """Two of the four products over a map of 56x56 tokens and 96 channels."""
    cosines, image = torch.randn(56, 56, generator=generator), torch.randn(56, 56 * 96, generator=generator)

    def turned() -> None:
        spectrum = onednn.linear(image.t(), cosines, None)
        onednn.linear(cosines, spectrum, None)

    def batched() -> None:
        torch.matmul(cosines, torch.matmul(cosines, image.view(56, 56, 96)).view(56, 56 * 96))

    return {"turned": turned, "batched": batched}


def _problem(rows: int, inner: int, outer: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    x, weight = torch.randn(rows, inner, generator=generator), torch.randn(outer, inner, generator=generator)
    return x, weight / inner**0.5, torch.randn(outer, generator=generator)


_QUESTIONS: dict[str, tuple[Callable[[], str], Callable[[torch.Generator], Ways]]] = {
    "linear layers": (lambda: "inside" if wide_instructions() else "after", _linear_ways),
    "training products": (lambda: "torch", _training_ways),
    "transforms": (lambda: "batched", _transform_ways),
}
_WITHOUT_ONEDNN = {"linear layers": "torch", "training products": "torch", "transforms": "batched"}

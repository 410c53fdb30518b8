"""What is known of the operators before anything is measured: their families, order and exponents."""

from __future__ import annotations

from vheatbench.case import Part

HEAT = "op/heat"
"""Heat conduction by the backend that ``auto`` chooses."""
OFFICIAL = "op/heat-official"
"""Heat conduction as the official code formulates it: the baseline of every backend."""

ATTENTION = "op/attention"
"""Global attention by the kernel that torch picks."""

EXPONENTS = {
    "op/heat": 1.5,
    "op/heat-official": 1.5,
    "op/heat-matmul": 1.5,
    "op/heat-symmetric": 1.5,
    "op/heat-fft": 1.0,
    "op/heat-triton": 1.5,
    "op/attention": 2.0,
    "op/attention-flash": 2.0,
    "op/attention-efficient": 2.0,
    "op/attention-math": 2.0,
    "op/window-attention": 1.0,
    "op/linear-attention": 1.0,
    "op/depthwise-conv": 1.0,
}
"""Of the multiply-adds in N on a square grid of N tokens, in the order in which operators are listed. Heat conduction
multiplies every row and column by a cosine matrix of side sqrt(N) (vHeat, section 3.3); attention has N^2 pairs."""


def is_heat(subject: str) -> bool:
    """Whether a subject is heat conduction, by any backend."""
    return subject == HEAT or subject.startswith(f"{HEAT}-")


def is_kernel(subject: str) -> bool:
    """Whether a subject is global attention forced to one kernel: a detail beside ``op/attention``."""
    return subject.startswith(f"{ATTENTION}-")


def rank(subject: str) -> int:
    """Place in the order of :data:`EXPONENTS`; unknown operators come last."""
    order = list(EXPONENTS)
    return order.index(subject) if subject in order else len(order)


def theory_of(subject: str, part: Part | None) -> str:
    """The exponent that theory expects of the time on large grids, where arithmetic and not memory limits it.

    A layer adds projections that are linear in N, so it lies between 1 and its core's exponent. Empty for an
    operator that is not in :data:`EXPONENTS`.
    """
    exponent = EXPONENTS.get(subject)
    if exponent is None:
        return ""
    logarithm = " and a log N" if subject == "op/heat-fft" else ""
    if part == "layer" and exponent > 1:
        return f"1 to {exponent:g}"
    return f"{exponent:g}{logarithm}"

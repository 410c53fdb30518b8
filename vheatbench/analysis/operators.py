"""What theory says of the operators, their families and their order."""

from __future__ import annotations

from collections.abc import Iterable

from vheatbench.store.schema import Record

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
"""In the order in which operators are listed, others after them. The exponents are those of runs whose records do not
hold their operator's own (``subjects/operators.py``); nothing has to be added here."""


def is_heat(subject: str) -> bool:
    """Whether a subject is heat conduction, by any backend."""
    return subject == HEAT or subject.startswith(f"{HEAT}-")


def is_kernel(subject: str) -> bool:
    """Whether a subject is global attention forced to one kernel: a detail beside ``op/attention``."""
    return subject.startswith(f"{ATTENTION}-")


def rank(subject: str) -> int:
    """Place in the order of :data:`EXPONENTS`; other operators come last."""
    order = list(EXPONENTS)
    return order.index(subject) if subject in order else len(order)


def theory_of(subject: str, records: Iterable[Record]) -> str:
    """The exponent that theory expects of the time on large grids, where arithmetic and not memory limits it.

    A layer adds projections that are linear in N, so it lies between 1 and its core's exponent. Empty for an operator
    of which nobody has said one.

    Args:
        records: of one part, those of ``subject`` among them.
    """
    own = [record for record in records if record.case.subject == subject]
    built = next((record.subject for record in own if "exponent" in record.subject), {})
    exponent = built.get("exponent", EXPONENTS.get(subject))
    if not isinstance(exponent, int | float):
        return ""
    if own and own[0].case.part == "layer" and exponent > 1:
        return f"1 to {exponent:g}"
    return f"{exponent:g}{' and a log N' if built.get('log_factor', subject == 'op/heat-fft') else ''}"

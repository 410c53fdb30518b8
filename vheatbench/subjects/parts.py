"""Naming the parts of a forward pass, for whoever listens; free while nobody does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

_NOTHING: AbstractContextManager[object] = contextlib.nullcontext()
_listener: Callable[[str], AbstractContextManager[object]] | None = None


def part(name: str) -> AbstractContextManager[object]:
    """Context of one part of a forward pass, such as ``dct`` or ``gate``.

    Outside :func:`profiling_parts` it is one shared context that does nothing: no allocation, and no graph
    break under ``torch.compile`` or ``torch.export``.
    """
    return _NOTHING if _listener is None else _listener(name)


def profiling() -> bool:
    """Whether someone listens to parts now: whoever does wants the usual path through the model watched."""
    return _listener is not None


@contextlib.contextmanager
def profiling_parts(listener: Callable[[str], AbstractContextManager[object]]) -> Iterator[None]:
    """Within it every :func:`part` is the context that ``listener`` makes of its name.

    Profile eagerly: a graph that was captured within it holds whatever the listener does.
    """
    global _listener
    outer, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = outer

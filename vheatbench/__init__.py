"""vheatbench: what vHeat's heat conduction operator really costs against attention.

``import vheatbench as vb`` stays light, so that the command line starts quickly. The names of :data:`__all__` load
their module on first use; what they do is in ``vheatbench/api/`` and in docs/python.md. ``import vheatbench.subjects``
registers vHeat in timm.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "UserError",
    "__version__",
    "ab",
    "compare",
    "erf",
    "heat",
    "load_checkpoint",
    "measure",
    "read_run",
    "report",
    "run",
    "scaling",
]

if TYPE_CHECKING:
    import inspect

    from vheatbench.api import heat
    from vheatbench.api.ab import ab
    from vheatbench.api.compare import compare
    from vheatbench.api.erf import erf
    from vheatbench.api.measure import measure
    from vheatbench.api.report import report
    from vheatbench.api.run import run
    from vheatbench.api.runs import read_run
    from vheatbench.api.scaling import scaling
    from vheatbench.errors import UserError
    from vheatbench.subjects.weights import load_checkpoint

_HOMES = {
    "UserError": "errors",
    "ab": "api.ab",
    "compare": "api.compare",
    "erf": "api.erf",
    "load_checkpoint": "subjects.weights",
    "measure": "api.measure",
    "read_run": "api.runs",
    "report": "api.report",
    "run": "api.run",
    "scaling": "api.scaling",
}
_CALLED_LIKE_ROOMS = ("ab", "measure", "report", "run")


def __getattr__(name: str) -> Any:
    if name in _CALLED_LIKE_ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "heat":
        return importlib.import_module(f"{__name__}.api.heat")
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Room(ModuleType):
    """A folder of this package that is called like a function of the API, and does what that does when it is called.

    ``vheatbench.run`` is both: ``vb.run("overview")`` measures, ``vheatbench.run.runner`` is a module.
    """

    def _function(self) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module(f"vheatbench.api.{name}"), name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function()(*args, **kwargs)

    @property
    def __signature__(self) -> inspect.Signature:
        import inspect

        return inspect.signature(self._function())

    @property
    def __doc__(self) -> str | None:  # type: ignore[override]
        import inspect

        return inspect.getdoc(self._function())


class _Package(ModuleType):
    """This module: Python puts a folder of a package into it once that is imported, and then it can be called."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CALLED_LIKE_ROOMS and isinstance(value, ModuleType):
            value.__class__ = _Room
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

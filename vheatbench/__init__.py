"""vheatbench: what vHeat's heat conduction operator really costs against attention.

``import vheatbench`` stays light, so that the command line starts quickly. The names below load
their module on first use; ``import vheatbench.subjects`` registers vHeat in timm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = ["__version__", "load_checkpoint"]

if TYPE_CHECKING:
    from vheatbench.subjects.weights import load_checkpoint


def __getattr__(name: str) -> Any:
    if name == "load_checkpoint":
        from vheatbench.subjects.weights import load_checkpoint

        return load_checkpoint
    raise AttributeError(f"module 'vheatbench' has no attribute {name!r}")

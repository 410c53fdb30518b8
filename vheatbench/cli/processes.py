"""Commands that ``torchrun`` may start several times: who speaks, and how one process's failure ends the others."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from vheatbench.cli import exits
from vheatbench.cli.parse import device_kind
from vheatbench.errors import DivergedError, UserError

if TYPE_CHECKING:
    from vheatbench.run.distributed import Group


def device_of(text: str) -> str:
    """``cpu`` or ``cuda`` of ``--device``; ``auto`` is a GPU where there is one. Raises UserError."""
    kind, index = device_kind(text)
    if index is not None:
        raise UserError(f"--device {text}: choose GPUs by CUDA_VISIBLE_DEVICES")
    if kind != "auto":
        return kind
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextlib.contextmanager
def user_errors_on_rank0() -> Iterator[None]:
    """For what all processes do alike, before they exchange anything: only the first one prints what is wrong."""
    from vheatbench.run.process import calm_threads

    os.environ.update(calm_threads())  # torch reads it when it is imported
    try:
        yield
    except UserError:
        if _is_first():
            raise
        raise typer.Exit(exits.USAGE) from None


@contextlib.contextmanager
def working(kind: str) -> Iterator[Group]:
    """The group of processes that ``torchrun`` started, or of this one; what goes wrong in it is printed once.

    Bad input that all processes know of is printed by the first. A process that fails in another way speaks for itself,
    and the others end with exit code 6, as all do where a training diverges. Stdout is kept for the result: models and
    libraries print what they like.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        with user_errors_on_rank0():
            from vheatbench.run.distributed import (
                LostPeerError,
                PeerError,
                SharedUserError,
                naming_lost_peers,
                process_group,
            )

            group = stack.enter_context(process_group(kind))
        try:
            with naming_lost_peers() if group.size > 1 else contextlib.nullcontext():
                yield group
        except SharedUserError:
            if group.is_main:
                raise
            raise typer.Exit(exits.USAGE) from None
        except DivergedError as error:
            if group.is_main:
                print(f"vheatbench: {error}", file=sys.stderr)
            raise typer.Exit(exits.FAILED) from None
        except PeerError as error:
            if isinstance(error, LostPeerError):
                print(f"vheatbench: process {group.rank} stops: another process is gone", file=sys.stderr)
            raise typer.Exit(exits.FAILED) from None


def by_torchrun() -> bool:
    """Whether ``torchrun`` started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"

"""Several processes that share one job, started by ``torchrun``; one process is a group of one."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed

from vheatbench.errors import UserError
from vheatbench.text import one_line

PATIENCE = timedelta(hours=2)
"""How long a process waits for the others: the first writes checkpoints while they do."""
T = TypeVar("T")


class PeerError(Exception):
    """Another process of the group failed; the message is its error in one line."""


class LostPeerError(PeerError):
    """Another process of the group is gone: nothing can be exchanged any more."""


class SharedUserError(UserError):
    """Bad input that every process of the group knows of: it is to be said once."""


@dataclass(frozen=True)
class Group:
    """The processes that work together, and which of them this one is."""

    device: torch.device
    """That this process computes on."""
    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The value of every process, in the order of ranks, in every process. Any picklable value.

        Raises:
            LostPeerError: a process is gone.
        """
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with naming_lost_peers():
            torch.distributed.all_gather_object(values, value)
        return cast("list[T]", values)

    def any(self, value: bool) -> bool:
        """Whether it is true in any process; much faster than :meth:`gather`. Raises LostPeerError."""
        if self.size == 1:
            return value
        flag = torch.tensor([float(value)])
        with naming_lost_peers():
            torch.distributed.all_reduce(flag)
        return bool(flag)

    def together(self, work: Callable[[], T]) -> T:
        """What ``work`` returns in this process; where it raises in one process, it raises in all.

        So no process waits for one that has failed. ``work`` exchanges nothing itself.

        Raises:
            SharedUserError: a process met bad input; its message.
            PeerError: in the others, where one failed in any other way. That one raises its own exception.
            LostPeerError: a process is gone.
        """
        if self.size == 1:
            return work()
        error: Exception | None = None
        try:
            value = work()
        except Exception as raised:  # told to the others before it goes on
            error = raised
        if not self.any(error is not None):
            return value
        told = None if error is None else (isinstance(error, UserError), type(error).__name__, str(error))
        answers = self.gather(told)
        if error is not None and not isinstance(error, UserError):
            raise error
        failures = [(rank, *failure) for rank, failure in enumerate(answers) if failure is not None]
        # bad input is what the user can mend, so it goes before what else failed
        rank, by_user, name, text = max(failures, key=lambda one: (one[1], -one[0]))
        raise SharedUserError(text) if by_user else PeerError(f"process {rank}: {name}: {one_line(text)}")

    def gather_or_raise(self, work: Callable[[], T]) -> list[T]:
        """What ``work`` returns in every process, in the order of ranks; where it raises in one, it raises in all.

        Raises:
            UserError, PeerError: as :meth:`together`.
        """
        return self.gather(self.together(work))

    def on_main(self, work: Callable[[], T]) -> T:
        """What ``work`` returns in the first process, in every process; where it raises there, it raises in all.

        Raises:
            UserError, PeerError: as :meth:`together`.
        """
        value = self.together(lambda: work() if self.is_main else None)
        return cast("T", self.gather(value)[0])


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error of torch's says that another process is gone: NCCL's have a class, gloo's only words."""
    if isinstance(error, (LostPeerError, torch.distributed.DistError)):
        return True
    return isinstance(error, RuntimeError) and ("gloo" in str(error) or "Connection closed by peer" in str(error))


@contextlib.contextmanager
def naming_lost_peers() -> Iterator[None]:
    """Turn whatever torch raises where another process is gone into LostPeerError."""
    try:
        yield
    except RuntimeError as error:
        if not is_lost_peer(error):
            raise
        raise LostPeerError(one_line(str(error))) from None


@contextlib.contextmanager
def process_group(kind: str) -> Iterator[Group]:
    """The group that ``torchrun`` started this process in, else a group of one.

    Tensors on a CPU travel by gloo, those on GPUs by NCCL; Python objects always by gloo. Each process on a
    machine takes the GPU of its own local number.

    Args:
        kind: ``cpu`` or ``cuda``.

    Raises:
        UserError: no such device, or more processes on this machine than GPUs.
    """
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError("CUDA was asked for, but torch sees no CUDA device")
    size, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cpu")
    if kind == "cuda":
        here, there = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        if here > there:
            raise UserError(f"torchrun started {here} processes for {there} GPUs: give --nproc-per-node {there}")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if size == 1:
        yield Group(device)
        return
    # of the tiny weights of depthwise convolutions, said by DDP once per process
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, timeout=PATIENCE)
    try:
        yield Group(device, torch.distributed.get_rank(), size)
    finally:
        torch.distributed.destroy_process_group()

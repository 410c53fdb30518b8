"""Several trainings at once on the cores of one machine, each in a process and with its share of the threads.

A model of 64 pixels does not keep two cores busy: two such models, a core each, are done in half the time. What each
one learns depends on nothing that the others do.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue
from queue import Empty

from vheatbench.errors import UserError
from vheatbench.store.schema import Record
from vheatbench.studies.training.progress import Progress

POLL_S = 0.5
Training = Callable[[int, Callable[[Progress], None]], Record]
"""Trains the model of this position and calls its second argument after every epoch. Picklable."""

_epochs: Queue[tuple[int, Progress]] | None = None


def side_by_side(
    training: Training, positions: Sequence[int], jobs: int, threads: int, on_epoch: Callable[[int, Progress], None]
) -> Iterator[Record]:
    """The records of trainings as they end.

    Args:
        training: carried out in another process.
        positions: its first arguments.
        jobs: processes at once.
        threads: of each.
        on_epoch: called in this process.

    Raises:
        UserError: a process is gone, as the kernel ends one where memory runs out; and what ``training`` raises. The
            others are stopped then; their checkpoints are kept.
    """
    context = multiprocessing.get_context("spawn")
    epochs: Queue[tuple[int, Progress]] = context.Queue()
    with ProcessPoolExecutor(jobs, context, _begin, (epochs, threads)) as pool:
        pending = {pool.submit(_train, training, position) for position in positions}
        try:
            while pending:
                done, pending = wait(pending, POLL_S, FIRST_COMPLETED)
                for position, progress in _waiting(epochs):
                    on_epoch(position, progress)
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise UserError(
                f"--jobs {jobs}: a process that trained is gone, as where memory runs out: its checkpoint is kept; go "
                "on with fewer at once"
            ) from None
        finally:
            if pending:
                pool.shutdown(wait=False, cancel_futures=True)
                for child in multiprocessing.active_children():
                    child.terminate()


def _begin(epochs: Queue[tuple[int, Progress]], threads: int) -> None:
    """In a new process: the one that started it heeds Ctrl-C for all."""
    import torch

    global _epochs
    _epochs = epochs
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)


def _train(training: Training, position: int) -> Record:
    assert _epochs is not None
    said = _epochs
    return training(position, lambda progress: said.put((position, progress)))


def _waiting(epochs: Queue[tuple[int, Progress]]) -> Iterator[tuple[int, Progress]]:
    with contextlib.suppress(Empty):
        while True:
            yield epochs.get_nowait()

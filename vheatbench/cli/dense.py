"""What ``vheatbench detect`` and ``vheatbench segment`` share: devices, processes, progress, results."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vheatbench.cli import exits, processes
from vheatbench.cli.output import command_line
from vheatbench.cli.processes import device_of, one_voice
from vheatbench.errors import StoreError, UserError
from vheatbench.stop import stoppable

if TYPE_CHECKING:
    import torch

    from vheatbench.run.distributed import Group
    from vheatbench.studies.dense.answers import Answers, Told
    from vheatbench.studies.dense.fit import Step
    from vheatbench.subjects.backbone import Beginning

EVERY_S = 10.0
"""Between two lines of progress."""
DTYPES = ("float32", "bfloat16")


@contextlib.contextmanager
def working(device: str) -> Iterator[Group]:
    """See :func:`vheatbench.cli.processes.working`. A loss that diverged ends the command with exit code 6."""
    with one_voice():
        from vheatbench.studies.dense.fit import DivergedError

        kind = device_of(device)
    with processes.working(kind) as group:
        try:
            yield group
        except DivergedError as error:
            if group.is_main:
                print(f"vheatbench: {error}", file=sys.stderr)
            raise typer.Exit(exits.FAILED) from None


def chosen(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """The value. Raises UserError for one that is not allowed."""
    if value not in allowed:
        raise UserError(f"{option} {value!r} is not known: {', '.join(allowed)}")
    return value


def positive(option: str, value: float) -> None:
    """Raises UserError for what is no number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise UserError(f"{option} {value:g}: give a number above 0")


def beginning_of(path: Path | None, use: str, rule: str, trust_pickle: bool) -> Beginning | None:
    """The classification checkpoint that a training begins with. Raises UserError."""
    from vheatbench.subjects.backbone import Beginning

    chosen("--use", use, ("model", "model_ema"))
    chosen("--rule", rule, ("bicubic", "zeropad"))
    return None if path is None else Beginning(path, use, rule, trust_pickle)  # type: ignore[arg-type]


def precision(dtype: str) -> torch.dtype | None:
    """What to run under autocast in; None for float32."""
    import torch

    return torch.bfloat16 if chosen("--dtype", dtype, DTYPES) == "bfloat16" else None


def sides(text: str | None, option: str) -> tuple[int, ...] | None:
    """``8,16,32`` to numbers. Raises UserError."""
    if text is None:
        return None
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or min(values) < 1:
        raise UserError(f"{option} {text!r}: give whole numbers of pixels by commas")
    return values


@contextlib.contextmanager
def keeping(kept: Callable[[], str], group: Group) -> Iterator[None]:
    """Where the work is stopped, say what of it is kept and how it goes on; ``kept`` is empty where nothing is."""
    from vheatbench.run.distributed import PeerError, naming_lost_peers

    try:
        with stoppable(lambda: kept() or "nothing is kept yet"), naming_lost_peers():
            yield
    except (UserError, StoreError, PeerError):
        words = kept() if group.is_main else ""
        if words:
            print(f"stopped: {words}", file=sys.stderr)
        raise


def checkpoint_kept(out: Path, progress: StepLines) -> str:
    """What :func:`keeping` says of a training: nothing of one that was refused before its first step."""
    from vheatbench.run.checkpointing import CHECKPOINT

    there = progress.begun and (out / CHECKPOINT).exists()
    again = command_line() if "--resume" in sys.argv else f"{command_line()} --resume"
    return f"the checkpoint in {out} is kept; continue with: {again}" if there else ""


def answers_kept(kept: Answers) -> str:
    """What :func:`keeping` says of an evaluation."""
    return f"what was answered is kept; continue with: {command_line()}" if kept.some else ""


def tell(lines: Iterable[str], group: Group) -> None:
    """What is to be known of the data before work begins, once; empty lines are left out."""
    if group.is_main:
        for line in filter(None, lines):
            print(line, file=sys.stderr)


def fresh(out: Path, resume: bool) -> None:
    """Raises UserError where a training would write over another."""
    from vheatbench.run.checkpointing import CHECKPOINT

    if not resume and (out / CHECKPOINT).exists():
        raise UserError(f"{out} holds a training: continue it with --resume, or give another --out")


class StepLines:
    """Tells steps on stderr, one line every few seconds."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._last = quiet, 0.0
        self.begun = False
        """Whether a step was taken."""

    def __call__(self, step: Step) -> None:
        self.begun = True
        if self._quiet or (time.monotonic() - self._last < EVERY_S and step.step != step.of):
            return
        self._last = time.monotonic()
        parts = " ".join(f"{name.removeprefix('loss_')} {value:.3g}" for name, value in step.losses.items())
        print(f"[{step.step}/{step.of}] loss {step.loss:.4g} ({parts}) lr {step.lr:.2g}", file=sys.stderr)


def image_lines(quiet: bool) -> Told:
    """Tells images that are done on stderr, one line every few seconds."""
    last = time.monotonic()

    def tell(done: int, of: int, before: bool) -> None:
        nonlocal last
        if before and not quiet:
            print(f"going on after {done} of {of} images", file=sys.stderr)
        if before or quiet or time.monotonic() - last < EVERY_S:
            return
        last = time.monotonic()
        print(f"[{done}/{of}] images", file=sys.stderr)

    return tell


def show_evaluation(path: Path, json_: bool) -> None:
    """Print the run of an evaluation: a table of scores in percent, or its record as JSON."""
    from vheatbench.store.read import read_run

    run = read_run(path)
    if json_:
        from vheatbench.cli.output import print_json

        print_json({"path": str(path), "record": run.records[0].model_dump(mode="json")})
    else:
        from vheatbench.studies.dense.table import print_scores

        print_scores(run)
    print(path, file=sys.stderr)

"""Evaluating accuracy: every image answered once, by one process or several, resumable, one record per resolution."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vheatbench.case import Case
from vheatbench.errors import StoreError, UserError
from vheatbench.files import GIB, read_bytes
from vheatbench.measure.environment import environment
from vheatbench.measure.outputs import check_finite, logits_of
from vheatbench.run.device import classify, prepared_device
from vheatbench.run.distributed import Group, LostPeerError, is_lost_peer
from vheatbench.run.recording import new_header
from vheatbench.run.step import DTYPES
from vheatbench.store.attachments import attach, folder_of
from vheatbench.store.schema import Record
from vheatbench.store.write import RunWriter
from vheatbench.studies.accuracy.answers import Answers, Part
from vheatbench.studies.accuracy.plan import EvalSettings, Plan, Ready, prepare
from vheatbench.studies.accuracy.record import fill
from vheatbench.studies.images.labelled import Batch, ImageTensors, collate
from vheatbench.suites import SuitePolicy
from vheatbench.text import one_line, utc_now


class EvalProgress(Protocol):
    """Told what happens, in the first process."""

    def begun(self, case: Case, done: int, total: int) -> None:
        """A resolution begins; so many of its images were done before."""

    def answered(self, done: int, correct: float) -> None:
        """So many images are done; the share of right answers so far."""

    def ended(self, record: Record) -> None:
        """The record is on disk."""


def begin(plan: Plan, results_dir: Path, command: str, description: str, timeout_s: float) -> RunWriter:
    """The file of a new run. Raises UserError where it cannot be made."""
    header = new_header(
        "eval",
        description,
        command,
        environment(),
        plan=list(plan.cases),
        studies=[{"study": "accuracy", "settings": TypeAdapter(EvalSettings).dump_python(plan.settings, mode="json")}],
        policy=SuitePolicy(timeout_s=timeout_s).model_dump(mode="json"),
    )
    return RunWriter.create(results_dir, header)


def reopen(plan: Plan, path: Path) -> RunWriter:
    """The file of an unfinished run, to go on with.

    Raises:
        UserError: data, weights or anything else that the answers depend on has changed since it was begun.
    """
    writer = RunWriter.resume(path)
    try:
        before = writer.header.plan
        for old, new in zip(before, plan.cases, strict=False):
            changed = [key for key in old.analysis if old.analysis[key] != new.analysis.get(key)]
            if changed:
                raise UserError(
                    f"{path}: {' and '.join(changed)} changed since this evaluation was begun: begin a new one"
                )
        if [case.id for case in before] != [case.id for case in plan.cases]:
            raise UserError(f"{path}: was begun by another version of vheatbench: begin a new one")
    except BaseException:
        writer.close()
        raise
    return writer


def evaluate(
    plan: Plan,
    open_run: Callable[[], RunWriter],
    group: Group,
    progress: EvalProgress,
) -> Path:
    """Carry a plan out; the finished run's file.

    The answers so far are on disk every ``settings.save_every`` batches. A model that fails gives a record that says
    why; an image that cannot be read ends the evaluation, which then can be resumed.

    Args:
        plan: what to do, the same in every process.
        open_run: :func:`begin` or :func:`reopen`; called in the first process only, as is ``progress``.
        group: the processes that share the images.
        progress: told what happens.

    Raises:
        UserError: the run cannot be begun, or an image cannot be read.
        StoreError: the run cannot be written; what it holds is safe.
        PeerError: another process failed or is gone.
    """
    with contextlib.ExitStack() as stack:
        writer = group.together(lambda: stack.enter_context(open_run()) if group.is_main else None)
        path, done = group.on_main(lambda: (writer.path, writer.done) if writer else (Path(), set()))
        for case in plan.cases:
            if (case.id, 0) in done:
                continue
            record = evaluate_case(case, plan, path, group, progress, SuitePolicy())
            group.on_main(lambda case=case, record=record: _keep(writer, case, record))  # type: ignore[misc]
            if group.is_main:
                progress.ended(record)
        return group.on_main(lambda: writer.finish() if writer else Path())


def _keep(writer: RunWriter | None, case: Case, record: Record) -> None:
    """In the first process: the record is on disk; what was answered before a failure stays beside the run."""
    assert writer is not None
    writer.append(record)
    if record.status == "ok":
        progress_file(writer.path, case).unlink(missing_ok=True)


def progress_file(run_path: Path, case: Case) -> Path:
    """Where the answers of an unfinished case are."""
    return folder_of(run_path) / f"{case.id}-progress.npz"


def evaluate_case(
    case: Case, plan: Plan, run_path: Path, group: Group, progress: EvalProgress, policy: SuitePolicy
) -> Record:
    """The record of one resolution; complete in the first process, the same status in all.

    Raises:
        UserError: an image cannot be read, or the weights do not fit.
        LostPeerError: another process is gone; what was answered is kept.
    """
    record = Record(case=case, case_id=case.id, status="ok", started=utc_now())
    started = time.monotonic()
    try:
        answers = group.on_main(lambda: _answers_before(run_path, case, len(plan.images)))
        if group.is_main:
            progress.begun(case, answers.done, len(plan.images))
        with _prepared_device(case, group, policy) as device:
            ready = group.together(lambda: prepare(case, plan.settings))
            record.subject = {**ready.built.facts, "weights": str(ready.loaded or plan.weights)}
            asking = _Asking(case, plan, ready, device)
            _ask_all(asking, answers, run_path, group, progress)
        group.together(lambda: fill(record, answers, plan, ready, run_path, group.size) if group.is_main else None)
    except (UserError, StoreError):
        raise
    except Exception as error:  # whatever a model raises is its result
        if group.size > 1 and is_lost_peer(error):
            raise LostPeerError(one_line(str(error))) from None
        record = Record(case=case, case_id=case.id, status="ok", started=record.started, subject=record.subject)
        record.status, record.reason = classify(error)
    record.elapsed_s = time.monotonic() - started
    return record


@dataclass
class _Asking:
    """A model on its device, and how it is asked."""

    case: Case
    plan: Plan
    ready: Ready
    device: torch.device

    def __post_init__(self) -> None:
        self.model = self.ready.model.to(self.device)
        self.outputs = torch.tensor(self.plan.classes.outputs, device=self.device)
        low = self.case.dtype in ("bfloat16", "float16")
        self.autocast = torch.autocast(self.device.type, DTYPES[self.case.dtype], enabled=low)

    @torch.inference_mode()
    def ask(self, images: Tensor) -> Any:
        """The model's output of a batch, when it is there: the device has finished. Whatever the model raises."""
        with self.autocast, self.ready.built.context():
            output = self.model(images)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return output

    def answer(self, batches: Iterator[Batch], count: int) -> Part:
        """The answers to the next ``count`` batches.

        Raises:
            UserError: an image cannot be read, and is not to be skipped.
            ValueError: logits that are no numbers.
        """
        part = Part([], [], [], [])
        clock = time.perf_counter()
        waited = model_s = 0.0
        for _ in range(count):
            batch = next(batches)
            self._check_broken(batch)
            part.broken.update(batch.broken)
            if batch.images is None:
                continue
            images = batch.images.to(self.device)
            targets = torch.tensor([self.plan.images.targets[i] for i in batch.indices], device=self.device)
            began = time.perf_counter()
            waited += began - clock
            output = self.ask(images)
            clock = time.perf_counter()
            model_s += clock - began
            self._note(part, batch.indices, output, self.outputs[targets])
        return replace(part, model_s=model_s, waited_s=waited)

    def _check_broken(self, batch: Batch) -> None:
        if batch.broken and not self.plan.settings.skip_broken:
            index, reason = next(iter(batch.broken.items()))
            more = f" (and {len(batch.broken) - 1} more beside it)" if len(batch.broken) > 1 else ""
            images = self.plan.images
            raise UserError(
                f"--data {images.root}: {images.names[index]}{more}: cannot be read as an image ({reason}): "
                "add --skip-broken to leave it out, or repair it and begin a new evaluation"
            )

    def _note(self, part: Part, indices: list[int], output: Any, right: Tensor) -> None:
        """Rank, answer and loss of a batch, in float64; of equal logits the first output comes first."""
        exact = logits_of(output).double()
        if not torch.isfinite(exact).all():
            first = indices[int((~torch.isfinite(exact).all(1)).nonzero()[0])]
            raise ValueError(f"the logits of {self.plan.images.names[first]} are not finite")
        check_finite(output, f" of {self.plan.images.names[indices[0]]} or an image beside it")
        own = exact.gather(1, right[:, None])
        before = torch.arange(exact.shape[1], device=self.device) < right[:, None]
        rank = ((exact > own) | ((exact == own) & before)).sum(1)
        part.indices.extend(indices)
        part.predicted.extend(exact.argmax(1).tolist())
        part.rank.extend(rank.tolist())
        part.loss.extend(nn.functional.cross_entropy(exact, right, reduction="none").tolist())


def _ask_all(asking: _Asking, answers: Answers, run_path: Path, group: Group, progress: EvalProgress) -> None:
    """Every image without an answer, in chunks after each of which the answers are on disk.

    Batches are cut before they are dealt out, so that every one holds the same images however many processes there
    are: no image is asked twice to make the shares equal, and a batch's logits do not depend on who computes them.
    """
    n, size, images = len(answers.predicted), asking.plan.settings.batch, asking.plan.images
    batches = [list(range(i, min(i + size, n))) for i in range(answers.done, n, size)]
    per_chunk = asking.plan.settings.save_every * group.size
    shares = [batches[i : i + per_chunk][group.rank :: group.size] for i in range(0, len(batches), per_chunk)]
    if not shares:
        return
    loader = DataLoader(
        ImageTensors(images, asking.ready.transform, asking.ready.mode),
        batch_sampler=[batch for share in shares for batch in share],
        num_workers=asking.plan.settings.readers,
        collate_fn=collate,
        pin_memory=asking.device.type == "cuda",
    )
    shape = (min(size, n), *asking.ready.built.input_shape)
    group.together(lambda: asking.ask(torch.zeros(shape, device=asking.device)))  # the clock is for a warm model
    loaded = iter(loader)
    for share in shares:
        answers.add(group.gather_or_raise(partial(asking.answer, loaded, len(share))))
        name = progress_file(run_path, asking.case).name
        group.on_main(lambda name=name: attach(run_path, name, answers.to_bytes()))  # type: ignore[misc]
        if group.is_main:
            progress.answered(answers.done, float(answers.within(1).mean()) if answers.read.any() else 0.0)


def _answers_before(run_path: Path, case: Case, n: int) -> Answers:
    """What an interrupted evaluation left, or no answers yet."""
    try:
        return Answers.from_bytes(read_bytes(progress_file(run_path, case), GIB), n)
    except (OSError, ValueError):
        return Answers(n)


@contextlib.contextmanager
def _prepared_device(case: Case, group: Group, policy: SuitePolicy) -> Iterator[torch.device]:
    """The process's device, and on a CPU a limit that makes torch raise before the kernel kills anything."""
    with prepared_device(case, policy):
        torch.backends.cudnn.benchmark = False  # it may choose another algorithm, with other rounding, every time
        yield group.device

"""Carrying a comparison out: both sides made ready, measured in turns, judged; also one that was interrupted."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from vheatbench.ab.arm import SIDES, Arm, ArmError, Side
from vheatbench.ab.request import Request, arms_of, begin
from vheatbench.ab.rounds import Answer, Pair, Rounds
from vheatbench.ab.turns import TurnProgress, take_turns
from vheatbench.analysis.fingerprint import differences, engine_differences, fingerprint
from vheatbench.errors import UserError
from vheatbench.metrics import names
from vheatbench.run.exports import remove_exports
from vheatbench.run.progress import Display
from vheatbench.run.task import Inspection
from vheatbench.stop import stoppable
from vheatbench.store.per_image import step_name
from vheatbench.store.read import PARTIAL, Run, read_run
from vheatbench.store.schema import Header, Record
from vheatbench.store.write import RunWriter
from vheatbench.suites import SuitePolicy
from vheatbench.verdict.compare import compare_runs
from vheatbench.verdict.comparison import Comparison, Conclusion
from vheatbench.verdict.judge import judge_case
from vheatbench.verdict.noise_floor import NoiseFloor, read_floor
from vheatbench.verdict.paired import CaseRounds
from vheatbench.verdict.regroup import floor_of, log_ratios
from vheatbench.verdict.rule import Looks
from vheatbench.verdict.settings import Settings, asked, settings_for


class EndedError(Exception):
    """A comparison that ends without a verdict on any metric: the reason in one line."""

    def __init__(self, reason: str, outcome: Conclusion) -> None:
        super().__init__(reason)
        self.outcome = outcome


@dataclass(frozen=True)
class Output:
    """Where the answer goes."""

    out: Path
    verdict: Path
    markdown: str | None
    json_: bool
    quiet: bool
    everything: bool

    @property
    def files(self) -> list[Path]:
        """What is written while the working tree is measured."""
        return [self.out, self.verdict, Path(self.markdown or "-")]


def settings_of(request: Request, looks: Looks) -> Settings:
    """How the two runs are compared. Raises UserError where that makes no sense."""
    kept = {"request": request.model_dump(mode="json"), "looks": list(looks.rounds), "alpha": looks.alpha}
    return asked(kept)  # as everybody will who reads the runs


def rounds_for(request: Request, pairs: Sequence[Pair], looks: Looks, seed: int) -> Rounds:
    """The plan of a comparison; one of code with itself takes all rounds and confirms nothing."""
    if request.aa:
        return Rounds(pairs, (looks.rounds[-1],), 0, seed, lambda _: "settled")
    settings = settings_of(request, looks)

    def judge(records: Sequence[tuple[Record, Record]]) -> Answer:
        base, head = tuple(one for one, _ in records), tuple(other for _, other in records)
        rounds = CaseRounds(base, head, paired=True, capped=None)
        verdicts = judge_case(head[0].case, base[0].case, rounds, settings, looks.confidence, comparable=True)
        gated = [v for v in verdicts if v.gate is not None and v.judged]
        if any(v.verdict == "regressed" for v in gated):
            return "flagged"
        # how much the head is better is worth more rounds in time, not in memory
        open_ = [
            v.verdict not in ("same", "improved")
            if step_name(v.metric) == "latency_s"
            else v.open or v.verdict == "suspect"
            for v in gated
        ]
        return "open" if any(open_) else "settled"

    return Rounds(pairs, looks.rounds, looks.rounds[0], seed, judge)


@dataclass
class Session:
    """One comparison from its beginning, or from where it was interrupted, to its exit code."""

    request: Request
    header: Header
    """What both runs have in common; its ``run_id`` is the comparison's."""
    looks: Looks
    rounds: Rounds
    output: Output
    begun: Mapping[Side, Run] | None = None
    """The runs that are continued."""
    writers: Mapping[Side, RunWriter] = field(default_factory=dict, init=False)
    """Open once there is something to be kept."""

    def measure(self, display: AbstractContextManager[Display]) -> dict[Side, Run]:
        """Measure what is due, and show how far it is; the two finished runs.

        Raises:
            UserError: a version, the working tree or a margin that will not do.
            StoreError: a run could not be written.
            EndedError: a side that cannot be measured, or sides that cannot be compared.
        """
        try:
            with stoppable(self._kept):
                paths = self._measure(display)
        except ArmError as error:
            raise EndedError(str(error), "failed") from None
        return {side: read_run(path) for side, path in paths.items()}

    def _measure(self, display: AbstractContextManager[Display]) -> dict[Side, Path]:
        """Take every turn that is due, and return the finished files."""
        if self.begun is not None and any(run.path.suffix != PARTIAL for run in self.begun.values()):
            return self._finish_other(self.begun)
        policy = SuitePolicy.model_validate(self.header.policy)
        with (
            arms_of(self.request, self.output.files, self._say, self.begun) as arms,
            contextlib.ExitStack() as stack,
        ):
            inspections = self._inspect(arms, policy)
            if self.begun is None:
                environments = {side: inspection.environment for side, inspection in inspections.items()}
                writers = begin(
                    self.output.out, self.header, self.request, arms, environments, self.rounds, self.looks.alpha
                )
            else:
                writers = {side: RunWriter.resume(run.path) for side, run in self.begun.items()}
            for writer in writers.values():
                stack.enter_context(writer)
            self.writers = writers
            try:
                take_turns(
                    arms, writers, self.rounds, policy, self.request.device,
                    TurnProgress(self.rounds, stack.enter_context(display)),
                )  # fmt: skip
            except ArmError:
                for writer in writers.values():  # why it failed stays on disk
                    writer.finish()
                raise
            paths = {side: writers[side].finish() for side in SIDES}
            remove_exports(paths["head"])
            return paths

    def _finish_other(self, begun: Mapping[Side, Run]) -> dict[Side, Path]:
        """The crash came between the ends of the two files: everything is measured."""
        paths = {}
        for side, run in begun.items():
            if run.path.suffix != PARTIAL:
                paths[side] = run.path
                continue
            with RunWriter.resume(run.path) as writer:
                paths[side] = writer.finish()
        return paths

    def _inspect(self, arms: Mapping[Side, Arm], policy: SuitePolicy) -> dict[Side, Inspection]:
        """Each side on this machine; refuses before anything is measured what could not be compared afterwards."""
        cases = {"base": [pair.base for pair in self.rounds.pairs], "head": [pair.head for pair in self.rounds.pairs]}
        found: dict[Side, Inspection] = {}
        for side, arm in arms.items():
            arm.check_understood(cases[side], policy)
            found[side] = arm.inspect(cases[side])
        problems = {side: inspection.problems for side, inspection in found.items()}
        shared = [line for line in problems["head"] if line in problems["base"]]
        if shared:
            raise UserError(shared[0])
        for side in SIDES:
            if problems[side] and (side == "head" or self.request.base is None):
                raise ArmError(f"{side} ({arms[side].name}): {problems[side][0]}")
        for line in problems["base"]:
            self._say(f"base ({arms['base'].name}) cannot measure all cases: {line}")
        if policy.turns:
            for side, arm in arms.items():
                if not arm.takes_turns:
                    self._say(f"{side} ({arm.name}) does not know turns: both sides are measured in bursts")
        self._check_machine({side: inspection.environment for side, inspection in found.items()})
        return found

    def _check_machine(self, environments: Mapping[Side, Mapping[str, object]]) -> None:
        kind = self.request.device.split(":")[0]
        engines = sorted({case.engine for pair in self.rounds.pairs for case in pair})
        unlike = differences(environments["base"], environments["head"], kind)
        unlike += engine_differences(environments["base"], environments["head"], engines)
        if unlike:
            raise EndedError(
                f"the two sides do not run in comparable environments: {'; '.join(unlike)}", "incomparable"
            )
        for side, run in (self.begun or {}).items():
            unlike = differences(run.header.environment, environments[side], kind)
            if unlike:
                raise UserError(
                    f"the comparison was begun in another environment ({'; '.join(unlike[:3])}): begin anew"
                )
        floor = read_floor(self.output.out, fingerprint(environments["head"], kind))
        if floor is not None and not self.request.aa:
            settings_of(self.request, self.looks).check_floor(floor)

    def compare(self, runs: Mapping[Side, Run]) -> Comparison:
        """The verdict, by what was asked for."""
        pairs = {pair.base.id: pair.head.id for pair in self.rounds.pairs}
        base, head = [runs["base"]], [runs["head"]]
        return compare_runs(base, head, settings_for(base, head, self.output.out), pairs)

    def noise_floor(self, runs: Mapping[Side, Run]) -> NoiseFloor:
        """Of code compared with itself: how far apart it comes out, for later comparisons here.

        Raises EndedError where too few rounds were measured to tell.
        """
        settings = settings_of(self.request, self.looks)
        kind, size = self.request.device.split(":")[0], self.looks.rounds[0]
        ids = [pair.base.id for pair in self.rounds.pairs]
        metrics, cases = {}, 0
        for metric in filter(settings.wants, names("gated")):
            sides = [[[r for r in runs[side].records if r.case_id == id_] for id_ in ids] for side in SIDES]
            ratios = [log_ratios(one, other, metric, settings.location) for one, other in zip(*sides, strict=True)]
            enough = [found for found in ratios if len(found) >= size]
            if enough:
                metrics[metric] = floor_of(enough, size, settings.confidence)
                cases = max(cases, len(enough))
        if not metrics:
            raise EndedError(f"no case has the {size} rounds on both sides that a noise floor needs", "failed")
        return NoiseFloor(
            fingerprint=fingerprint(runs["head"].header.environment, kind),
            device=kind,
            metrics=metrics,
            rounds=size,
            location=settings.location,
            cases=cases,
        )

    def _say(self, text: str) -> None:
        if not self.output.quiet:
            print(text, file=sys.stderr, flush=True)

    def _kept(self) -> str:
        """Of a comparison that was stopped, and how it goes on. Raises StoreError where a run's file is gone."""
        if not self.writers and self.begun is None:
            return "nothing was measured yet"
        if self.writers:
            for writer in self.writers.values():
                writer.check()
            count = sum(writer.count for writer in self.writers.values())
        else:
            count = sum(len(run.records) for run in (self.begun or {}).values())
        place = f" --out {shlex.quote(str(self.output.out))}" if self.output.out != Path("results") else ""
        return (
            f"{count} measurements are safe in {self.output.out}\n"
            f"continue with: vheatbench ab --resume {self.header.run_id}{place}"
        )

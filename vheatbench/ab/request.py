"""A comparison of two sides that are measured in turns: what is asked, its two runs, going on after an interruption."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from vheatbench.ab.arm import SIDES, Arm, Say, Side, present_arms, version_arms
from vheatbench.ab.rounds import Rounds
from vheatbench.ab.worktree import Repository, Version
from vheatbench.errors import UserError
from vheatbench.store.read import PARTIAL, Run, begun_runs, read_run
from vheatbench.store.schema import Header
from vheatbench.store.write import RunWriter

ORDER = (
    "both sides of a round in turns of a fraction of a second where they can live at once, else one after the other; "
    "who goes first is drawn (ABBA or BAAB)"
)


class Request(BaseModel):
    """What is to be compared and by which rules. Kept in both runs, so that a comparison can be resumed."""

    model_config = ConfigDict(frozen=True)

    base: str | None = None
    head: str | None = None
    """Refs of two versions; None where it is not versions that differ."""
    base_model: str | None = None
    head_model: str | None = None
    aa: bool = False
    """The same code on both sides, to measure the noise."""
    device: str = "cpu"
    """``cpu`` or ``cuda:INDEX``."""
    margins: dict[str, float] = {}
    """By metric; that of all others under the empty name."""
    metrics: tuple[str, ...] | None = None
    location: str = "p25"

    def refs(self) -> dict[Side, str]:
        """Both versions, where versions are compared."""
        return {"base": self.base, "head": self.head or "."} if self.base is not None else {}


@contextlib.contextmanager
def arms_of(
    request: Request, ignore: Sequence[Path], say: Say, begun: Mapping[Side, Run] | None = None
) -> Iterator[dict[Side, Arm]]:
    """Both sides, ready to be measured for as long as the block lasts.

    Args:
        request: what is compared.
        ignore: files that the comparison itself writes into the working tree.
        say: told what takes a while, or is left out.
        begun: the runs that are to be continued: with the commits that they began with, wherever branches are now.

    Raises:
        UserError: there is no such version, or the working tree is not what it was when the comparison began.
        ArmError: a side cannot be measured.
    """
    if not request.refs():
        yield present_arms({"base": request.base_model or "this code", "head": request.head_model or "this code"})
        return
    repository = Repository()
    versions = {
        side: _version(repository, ref, ignore, begun[side] if begun is not None else None)
        for side, ref in request.refs().items()
    }
    submodules = repository.submodules()
    if submodules and any(version.ref != "." for version in versions.values()):
        say(f"submodules are not checked out: {', '.join(submodules)}")
    for side, version in versions.items():
        say(f"{side}: {version.name}")
    with version_arms(repository, versions, ignore, say) as arms:
        yield arms


def _version(repository: Repository, ref: str, ignore: Sequence[Path], begun: Run | None) -> Version:
    if begun is None:
        return repository.version(ref, ignore)
    code = begun.header.pairing["code"]
    if ref != ".":
        return Version(ref, repository.version(code["commit"]).commit)
    version = repository.version(ref, ignore)
    if (version.commit, version.changes) != (code["commit"], code["changes"]):
        raise UserError(
            f"the working tree is not what it was when the comparison began ({begun.header.pairing['name']}, "
            f"now {version.name}): restore it, or begin anew"
        )
    return version


def begin(
    out: Path,
    header: Header,
    request: Request,
    arms: Mapping[Side, Arm],
    environments: Mapping[Side, dict[str, Any]],
    rounds: Rounds,
    alpha: float,
) -> dict[Side, RunWriter]:
    """Open a run for each side.

    ``header`` is what both have in common; its ``run_id`` is the comparison's. ``alpha`` is the probability of an
    error that the looks share.

    Raises:
        UserError: a run cannot be written.
    """
    plans = {"base": [pair.base for pair in rounds.pairs], "head": [pair.head for pair in rounds.pairs]}
    common = {
        "id": header.run_id,
        "order": ORDER,
        "seed": rounds.seed,
        "looks": list(rounds.looks),
        "alpha": alpha,
        "confirm_from": rounds.looks[-1],
        "confirmation": rounds.confirmation,
        "pairs": {pair.base.id: pair.head.id for pair in rounds.pairs if pair.base != pair.head},
        "request": request.model_dump(mode="json"),
    }
    writers: dict[Side, RunWriter] = {}
    for side in SIDES:
        changes = {
            "run_id": f"{header.run_id}-{side}",
            "environment": environments[side] | _project(arms[side]),
            "plan": plans[side],
            "rounds": rounds.looks[0],
            "pairing": {**common, "side": side, "name": arms[side].name, "code": arms[side].facts},
        }
        try:
            writers[side] = RunWriter.create(out, header.model_copy(update=changes))
        except ValueError as error:  # an infinite time limit, say
            raise UserError(f"suite {header.suite!r} cannot be kept: {error}") from None
    return writers


def _project(arm: Arm) -> dict[str, Any]:
    """The version of a side in its run's environment; nothing where the sides are not versions.

    The worker of an older vheatbench does not know of it, and that of the working tree not what to ignore in it.
    """
    facts = arm.facts
    return {"project": {"commit": facts["commit"], "dirty": bool(facts["changes"])}} if facts else {}


def find_comparison(name: str, out: Path) -> dict[Side, Run]:
    """Both runs of an unfinished comparison: its id, the beginning of one, or ``latest``.

    Raises:
        UserError: there is none, more than one, or it is finished.
    """
    found: dict[str, dict[Side, Run]] = {}
    for path in begun_runs(out):
        for side in SIDES:
            stem = path.name.removesuffix(PARTIAL)
            id_ = stem.removesuffix(f"-{side}.jsonl").rsplit("-", 1)[-1]
            if stem.endswith(f"-{side}.jsonl") and (name == "latest" or id_.startswith(name)):
                run = read_run(path)
                if run.header.pairing.get("id") == id_:
                    found.setdefault(id_, {})[side] = run
    whole = {id_: runs for id_, runs in found.items() if len(runs) == len(SIDES)}
    unfinished = {id_: runs for id_, runs in whole.items() if any(run.path.suffix == PARTIAL for run in runs.values())}
    if unfinished and (name == "latest" or len(unfinished) == 1):
        return next(iter(unfinished.values()))
    if unfinished:
        raise UserError(f"{name!r} is the beginning of {len(unfinished)} comparisons: {', '.join(unfinished)}")
    if whole and name != "latest":
        id_ = next(iter(whole))
        raise UserError(f"comparison {id_} is finished: `vheatbench compare {id_}-base {id_}-head` shows it again")
    raise UserError(f"there is no unfinished comparison {name!r} in {out}")

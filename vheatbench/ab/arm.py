"""One side of a comparison: which code, in which environment, how its workers are started."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from vheatbench.ab.interpreter import (
    InstallError,
    brings_vheatbench,
    dependency_key,
    known_fields,
    make_environment,
    package_folder,
    search_path,
)
from vheatbench.ab.worktree import Repository, Version
from vheatbench.case import Case
from vheatbench.errors import UserError, WorkerError
from vheatbench.run.process import Launch
from vheatbench.run.runner import inspect_machine
from vheatbench.run.task import Inspection, MeasureTask
from vheatbench.suites import SCHEDULING, SuitePolicy

Side = Literal["base", "head"]
SIDES: tuple[Side, Side] = ("base", "head")
Say = Callable[[str], None]
"""Told what takes a while."""


class ArmError(Exception):
    """A side cannot be measured at all: its code does not install, import or run. Exit code 6."""


@dataclass(frozen=True)
class Arm:
    """One side, ready to be measured."""

    side: Side
    name: str
    """What it is, in words: a version or a model."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The same for the header of its run: ref, commit, uncommitted changes, interpreter."""
    launch: Launch = field(default_factory=Launch)

    @property
    def takes_turns(self) -> bool:
        """Whether its workers can live beside the other side's, and sample when it is their turn."""
        return "others" not in self.launch.leave_out

    def inspect(self, cases: Sequence[Case]) -> Inspection:
        """What the machine is and which cases cannot be, by this side's code.

        Raises:
            ArmError: its worker does not come up.
        """
        try:
            return inspect_machine(cases, launch=self.launch)
        except WorkerError as error:
            raise ArmError(f"{self.side} ({self.name}): {error}") from None
        except ValueError as error:
            raise ArmError(f"{self.side} ({self.name}): its worker answers in another way: {error}") from None

    def check_understood(self, cases: Sequence[Case], policy: SuitePolicy) -> None:
        """Raises UserError if this side's vheatbench lacks an axis or a field of the policy that is made use of."""
        for what, items in (("case", cases), ("policy", [policy])):
            for item in items:
                given = item.model_dump(exclude_defaults=True)
                missing = sorted((set(self.launch.leave_out.get(what, ())) - SCHEDULING) & given.keys())
                if missing:
                    raise UserError(
                        f"{self.side} ({self.name}) has a vheatbench that does not know {missing[0]!r}: leave it out"
                    )


@contextlib.contextmanager
def version_arms(
    repository: Repository, versions: Mapping[Side, Version], ignore: Sequence[Path], say: Say
) -> Iterator[dict[Side, Arm]]:
    """Both versions checked out and ready, for as long as the block lasts.

    ``.`` is measured where it is, and must be the same at the end but for the files in ``ignore``. A version whose
    dependencies are those of the working tree runs in the present interpreter, others in a virtual environment each,
    made here and removed at the end.

    Raises:
        UserError: git refuses.
        ArmError: an environment cannot be made, the code's vheatbench cannot be imported, or the working tree was
            changed meanwhile; names the side.
    """
    commits = {side: version.commit for side, version in versions.items() if version.ref != "."}
    with repository.checked_out(commits) as places:
        shelf = next(iter(places.values())).parent if places else None
        environments = Environments(repository, shelf, say)
        yield {
            side: environments.arm(side, version, places.get(side, repository.root))
            for side, version in versions.items()
        }
        for side, version in versions.items():
            if version.ref == "." and repository.version(".", ignore) != version:
                raise ArmError(f"{side} ({version.name}): the working tree was changed while it was measured")


def present_arms(names: Mapping[Side, str]) -> dict[Side, Arm]:
    """The present code on both sides: two models, or the same twice."""
    return {side: Arm(side, name) for side, name in names.items()}


class Environments:
    """Makes an interpreter per distinct set of dependencies."""

    def __init__(self, repository: Repository, shelf: Path | None, say: Say) -> None:
        """``shelf``: temporary folder for virtual environments; None where no version is checked out."""
        self._repository = repository
        self._shelf = shelf
        self._say = say
        self._made: dict[str, tuple[str, list[str]]] = {}

    def arm(self, side: Side, version: Version, tree: Path) -> Arm:
        """A side that runs the code in ``tree``. Raises ArmError."""
        if not (tree / self._repository.prefix).is_dir():
            raise ArmError(f"{side} ({version.name}): it has no folder {self._repository.prefix}")
        try:
            launch, how = self._launch(tree, f"{side} ({version.name})")
        except InstallError as error:
            raise ArmError(f"{side} ({version.name}): {error}") from None
        facts = {
            "ref": version.ref,
            "commit": version.commit,
            "changes": version.changes,
            "changed_files": version.changed_files,
            "interpreter": how,
        }
        return Arm(side, version.name, facts, launch)

    def _launch(self, tree: Path, name: str) -> tuple[Launch, str]:
        """How workers run the code of ``tree``, and in words where its dependencies are from."""
        here = self._repository.root
        root = tree / self._repository.prefix
        project = root if (root / "pyproject.toml").is_file() else tree
        key = dependency_key(project)
        if self._shelf is None or key == dependency_key(here / project.relative_to(tree)):
            python, path, how = sys.executable, moved_path(sys.path, here, tree), "the present environment"
        else:
            if key not in self._made:
                self._say(f"{name}: its dependencies are not the working tree's; installing them can take minutes")
                python = make_environment(project, self._shelf / f"environment-{len(self._made)}")
                self._made[key] = python, search_path(python, project)
            python, path = self._made[key]
            how = f"a virtual environment of its own (dependencies {key})"
            if not brings_vheatbench(project):
                path = [*path, str(_alone(package_folder(), self._shelf))]
        path = with_project(path, list(dict.fromkeys([root, project, project / "src"])))
        variables = {}
        if os.environ.get("PYTHONPATH"):
            entries = moved_path(os.environ["PYTHONPATH"].split(os.pathsep), here, tree)
            variables["PYTHONPATH"] = os.pathsep.join(entries)
        launch = Launch(python, tuple(path), root, variables)
        return replace(launch, leave_out=_unknown_fields(launch)), how


def moved_path(entries: Sequence[str], old: Path, new: Path) -> list[str]:
    """``sys.path`` with the places in the folder ``old`` replaced by the same ones in ``new``, where those exist.

    A virtual environment inside the repository is in no worktree, and stays.
    """
    moved = []
    for entry in filter(None, entries):
        place = Path(entry).resolve()
        if place == old or old in place.parents:
            there = new / place.relative_to(old)
            moved.append(str(there) if there.exists() else entry)
        else:
            moved.append(entry)
    return list(dict.fromkeys(moved))


def with_project(path: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """``path`` with a project's folders after the standard library's and before everything else.

    Before, a ``random.py`` of the project's would pass for Python's; after, another copy of the project, installed or
    in ``PYTHONPATH``, would be measured on both sides.
    """
    added = [str(folder) for folder in folders if folder.is_dir()]
    standard = [entry for entry in path if re.fullmatch(r"python3[.\d]*(\.zip)?|lib-dynload", Path(entry).name)]
    return list(dict.fromkeys([*standard, *added, *path]))


def _alone(package: Path, folder: Path) -> Path:
    """A folder that holds a package and nothing else that is installed beside it."""
    shelf = folder / "vheatbench"
    shelf.mkdir(exist_ok=True)
    link = shelf / package.name
    if not link.exists():
        link.symlink_to(package)
    return shelf


def _unknown_fields(launch: Launch) -> dict[str, Any]:
    """What an older vheatbench does not know of a task, as pydantic's ``exclude``; empty if it knows everything."""
    case, policy, task = known_fields(launch.python, launch.path or (), launch.folder)
    axes, fields = set(Case.model_fields) - case, set(SuitePolicy.model_fields) - policy
    found: dict[str, Any] = {name: True for name in MeasureTask.model_fields if name not in task}
    return found | ({"case": axes, "cases": {"__all__": axes}, "policy": fields} if axes or fields else {})

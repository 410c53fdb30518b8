"""The folder of a run on a cluster: its plan, its job, and a folder for every shard.

::

    results/slurm-<utc>-<suite>-<id>/
        job.sh  merge.sh        what sbatch was given
        plan.json               every case, and which shard measures it: what was planned is what is measured
        jobs.json               ids of the jobs
        logs/                   one file for each shard, appended to by every try
        shards/0001/            the run file of a shard, and tries.txt: when and where it was begun

A shard looks into its own folder alone, so that a thousand of them do not list each other's files.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.files import MIB, append, read_bytes, reason_of, write_file
from vheatbench.run.task import Group
from vheatbench.store.read import PARTIAL, list_runs
from vheatbench.text import utc_now

PREFIX = "slurm-"
MOST_PLAN_BYTES = 256 * MIB


class StudyPlan(BaseModel):
    """A study of a run on a cluster."""

    model_config = ConfigDict(extra="ignore")

    study: str
    settings: dict[str, Any]
    groups: list[Group]


class ClusterPlan(BaseModel):
    """What every shard measures, and how."""

    model_config = ConfigDict(extra="ignore")

    version: int = 1
    command: str
    suite: str
    description: str = ""
    kind: str
    """Of the device: ``cpu`` or ``cuda``."""
    device: str = "auto"
    devices: str | None = None
    """As on the command line."""
    rounds: int = 1
    policy: dict[str, Any] = Field(default_factory=dict)
    reference: dict[str, Any] = Field(default_factory=dict)
    """Published numbers."""
    cases: list[Case]
    """The timed cases of all shards."""
    studies: list[StudyPlan] = Field(default_factory=list)
    shards: list[list[str]]
    """Ids of the cases of each shard, in measuring order."""
    common: list[str] = Field(default_factory=list)
    """Ids of the cases that every shard measures: the ceilings and the reference group."""
    foreseen_s: list[float] = Field(default_factory=list)
    """Seconds that each shard is expected to take."""
    minutes: int | None = None
    """The time that is asked for; None where the user has said it."""
    requeue: bool = True

    @cached_property
    def _timed(self) -> dict[str, Case]:
        # an id is a hash of the case: once for each, not for each shard
        return {case.id: case for case in self.cases}

    def cases_of(self, number: int) -> list[Case]:
        """The timed cases of a shard, counted from 1."""
        return [self._timed[id_] for id_ in self.shards[number - 1] if id_ in self._timed]

    def studies_of(self, number: int) -> list[StudyPlan]:
        """The studies with the groups that a shard measures."""
        wanted = set(self.shards[number - 1])
        parts = [
            study.model_copy(update={"groups": [group for group in study.groups if group.cases[0].id in wanted]})
            for study in self.studies
        ]
        return [part for part in parts if part.groups]

    def measurements(self, number: int) -> int:
        """Records that a shard has in the end, without those of a budget."""
        return sum(self.rounds if id_ in self._timed else 1 for id_ in self.shards[number - 1])


class Jobs(BaseModel):
    """What was submitted."""

    array: list[str] = Field(default_factory=list)
    """Ids of the job arrays, the latest last."""
    merge: list[str] = Field(default_factory=list)
    cancelled: bool = False
    """Whether ``slurm cancel`` was called since the last was submitted."""


class Try(BaseModel):
    """One start of a shard."""

    model_config = ConfigDict(extra="ignore")

    started: str
    host: str = ""
    node: str = ""
    job_id: str = ""
    restart_count: str = "0"
    records: int = 0
    """That the shard held by then."""


class ClusterFolder:
    """The folder of one run on a cluster."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def new(cls, out: Path, suite: str) -> ClusterFolder:
        """A folder that is not there yet, under a name of its own."""
        stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", suite)[:60]
        return cls(out.absolute() / f"{PREFIX}{stamp}-{slug}-{secrets.token_hex(2)}")

    @property
    def script(self) -> Path:
        return self.path / "job.sh"

    @property
    def merge_script(self) -> Path:
        return self.path / "merge.sh"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def log(self, number: int) -> Path:
        """What the tries of a shard have printed."""
        return self.logs / f"{number}.log"

    def shard(self, number: int) -> Path:
        """The folder of a shard, counted from 1."""
        return self.path / "shards" / f"{number:04d}"

    def run_of(self, number: int) -> Path | None:
        """The run file of a shard: finished, else the newest unfinished; None where it has not begun."""
        runs = list_runs(self.shard(number))
        return next((path for path in runs if path.suffix != PARTIAL), runs[0] if runs else None)

    def make(self, plan: ClusterPlan) -> None:
        """Write the plan, and the folders that Slurm does not make. Raises UserError, StoreError."""
        write_file(self.path / "plan.json", plan.model_dump_json(exclude_defaults=True))
        for number in range(1, len(plan.shards) + 1):
            self.shard(number).mkdir(parents=True)
        self.logs.mkdir()

    def plan(self) -> ClusterPlan:
        """Raises UserError where there is none."""
        return ClusterPlan.model_validate(self._json("plan.json"))

    def jobs(self) -> Jobs:
        """Raises UserError where the file is damaged."""
        return Jobs.model_validate(self._json("jobs.json")) if (self.path / "jobs.json").exists() else Jobs()

    def write_jobs(self, jobs: Jobs) -> None:
        """Raises UserError, StoreError."""
        write_file(self.path / "jobs.json", jobs.model_dump_json())

    def tries(self, number: int) -> list[Try]:
        """Every start of a shard; lines that a crash cut off are left out."""
        try:
            lines = read_bytes(self.shard(number) / "tries.txt", MIB).splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            with suppress(ValidationError):
                found.append(Try.model_validate_json(line))
        return found

    def records(self, number: int) -> int:
        """How many records a shard holds."""
        path = self.run_of(number)
        try:
            data = path.read_bytes() if path is not None else b""
        except OSError:
            return 0
        return sum(line.startswith(b'{"line":"record"') for line in data.split(b"\n")[:-1])

    def forget_tries(self, number: int) -> None:
        """Give a shard as many tries as a new one has."""
        (self.shard(number) / "tries.txt").unlink(missing_ok=True)

    def merged(self) -> Path | None:
        """The file that the shards were merged into, where they were and it is still there."""
        try:
            path = self.path.parent / (self.path / "merged.txt").read_text().strip()
        except OSError:
            return None
        return path if path.is_file() else None

    def begin_try(self, number: int, records: int, where: dict[str, Any]) -> None:
        """Note a start of a shard. Raises OSError."""
        job = where.get("slurm", {})
        known = {key: job[key] for key in ("node", "job_id", "restart_count") if key in job}
        started = Try(started=utc_now(), host=where["host"], records=records, **known)
        with (self.shard(number) / "tries.txt").open("ab") as file:
            append(file.fileno(), started.model_dump_json().encode() + b"\n")

    def _json(self, name: str) -> Any:
        path = self.path / name
        try:
            return json.loads(read_bytes(path, MOST_PLAN_BYTES))
        except FileNotFoundError:
            raise UserError(f"{self.path} is no folder of a run on a cluster: there is no {name} in it") from None
        except OSError as error:
            raise UserError(f"cannot read {path}: {reason_of(error)}") from error
        except ValueError:
            raise UserError(f"{path} is damaged: it is no JSON") from None


def find_folder(name: str, results: Path) -> ClusterFolder:
    """The folder that ``name`` means: a path, the beginning of a folder's name in ``results``, or ``latest``.

    Raises:
        UserError: there is none, or more than one.
    """
    if name != "latest" and (Path(name) / "plan.json").exists():
        return ClusterFolder(Path(name).absolute())
    known = sorted(path for path in results.glob(f"{PREFIX}*") if (path / "plan.json").exists())
    matches = known[-1:] if name == "latest" else [path for path in known if _means(name, path)]
    if len(matches) == 1:
        return ClusterFolder(matches[0].absolute())
    if matches:
        raise UserError(f"{name!r} means {len(matches)} runs on the cluster: {_names(matches)}")
    there = f"there are {_names(known)}" if known else "there are none"
    raise UserError(f"there is no run on a cluster {name!r} in {results}: {there}")


def _means(name: str, path: Path) -> bool:
    return path.name.startswith(name) or path.name.endswith(f"-{name}")


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[-5:])

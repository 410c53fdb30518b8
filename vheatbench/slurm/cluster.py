"""Slurm by its own commands: what it allows, what it knows of a job, and what it is told to do.

Nothing here asks for accounting (``sacct``): many clusters keep none. What Slurm has forgotten, some minutes after a
job has ended, is in the run's folder.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from vheatbench.errors import UserError, WorkerError
from vheatbench.text import one_line, some

TIMEOUT_S = 60.0
"""Slurm's controller may be busy; it is not waited for any longer."""


@dataclass(frozen=True)
class TaskState:
    """What Slurm knows of one task of an array."""

    state: str
    """``PENDING``, ``RUNNING``, ..."""
    reason: str
    """Why it waits."""
    node: str


def installed() -> bool:
    """Whether there is Slurm's sbatch here."""
    return shutil.which("sbatch") is not None


def max_array_size() -> int | None:
    """The largest index of a task of an array; None where Slurm does not say."""
    match = re.search(r"^MaxArraySize\s*=\s*(\d+)", _run(["scontrol", "show", "config"]), re.MULTILINE)
    return int(match[1]) - 1 if match else None


def partitions() -> dict[str, int | None]:
    """Names of the partitions to the longest time of a job in seconds, None for any."""
    found = {}
    for line in _run(["sinfo", "-h", "-o", "%R|%l"]).splitlines():
        name, _, limit = line.partition("|")
        found[name] = seconds_of(limit)
    return found


def default_partition() -> str | None:
    """The partition of jobs that name none."""
    for line in _run(["sinfo", "-h", "-o", "%P"]).splitlines():
        if line.strip().endswith("*"):
            return line.strip()[:-1]
    return None


def generic_resources(partition: str | None) -> list[str]:
    """The generic resources of nodes, of a partition or all: ``gpu:h100:8``."""
    words = ["-p", partition] if partition else []
    listed = _run(["sinfo", "-h", *words, "-o", "%G"]).replace("(null)", "")
    return sorted({re.sub(r"\(.*?\)", "", one) for line in listed.split() for one in _outside_brackets(line) if one})


def other_hosts() -> list[str]:
    """Machines of the cluster that are not this one."""
    here = os.uname().nodename.split(".")[0]
    hosts = re.findall(r"NodeHostName=(\S+)", _run(["scontrol", "show", "node", "-o"]))
    return sorted({host for host in hosts if host.split(".")[0] != here})


def submit(script: str, *options: str) -> str:
    """Hand a script to sbatch; the id of the job.

    Raises:
        UserError: Slurm refuses it. Nothing was submitted then.
    """
    try:
        answer = _run(["sbatch", "--parsable", *options, script])
    except WorkerError as error:
        raise UserError(f"Slurm refuses the job: {error}") from None
    return answer.strip().splitlines()[-1].split(";")[0]


def task_states(job: str) -> dict[int, TaskState] | None:
    """What Slurm knows of the tasks of an array by their number, in one question.

    Empty for a job that is over and forgotten; None where Slurm does not answer.
    """
    try:
        answer = _run(["squeue", "-h", "-r", "-j", job, "-o", "%K|%T|%r|%N"])
    except WorkerError as error:
        return {} if "Invalid job id" in str(error) else None
    found = {}
    for line in answer.splitlines():
        number, state, reason, node = line.split("|", 3)
        if number.isdigit():
            found[int(number)] = TaskState(state, "" if reason == "None" else reason, node)
    return found


def job_state(job: str) -> str:
    """``RUNNING``, ``CANCELLED``, ... of a job; empty where Slurm does not know it."""
    try:
        match = re.search(r"JobState=(\S+)", _run(["scontrol", "show", "job", "-o", job]))
    except WorkerError:
        return ""
    return match[1] if match else ""


def requeue(job: str) -> None:
    """Put a running job back into the queue, which ends this process too. Raises WorkerError."""
    _run(["scontrol", "requeue", job])


def cancel(job: str) -> None:
    """End a job, or all tasks of an array. Raises WorkerError."""
    _run(["scancel", job])


def shorten(job: str, minutes: int) -> int:
    """Ask for less time for what of an array still waits; how many tasks that are. Raises WorkerError."""
    waiting = _run(["squeue", "-h", "-r", "-t", "PENDING", "-j", job, "-o", "%K"]).split()
    numbers = sorted(int(number) for number in waiting if number.isdigit())
    if numbers:
        tasks = ",".join(f"{a}-{b}" if a < b else f"{a}" for a, b in ranges(numbers))
        _run(["scontrol", "update", f"JobId={job}_[{tasks}]", f"TimeLimit={minutes}"])
    return len(numbers)


def ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted numbers as first and last of what follows one another: 1, 2, 3, 7 is (1, 3), (7, 7)."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


def seconds_of(limit: str) -> int | None:
    """A time of Slurm (``30``, ``1:30:00``, ``2-12``, ``1-00:00:00``) in seconds; None for ``infinite``."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit.strip())
    if match is None:
        return None
    days, a, b, c = (int(part) if part else 0 for part in match.groups())
    if match[1] is not None or match[4] is not None:
        hours, minutes, seconds = a, b, c
    else:
        hours, minutes, seconds = 0, a, b
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def check_partition(partition: str | None) -> None:
    """Raise UserError for a partition that the cluster has not."""
    known = partitions()
    for name in (partition or "").split(","):
        if name and name not in known:
            raise UserError(f"--slurm: there is no partition {name!r}; there are {some(known, 8)}")


def check_gres(asked: str | None, partition: str | None) -> None:
    """Raise UserError for generic resources, ``gpu:h100:1,tmp:5``, of which no node of the partition has the kind."""
    if asked is None:
        return
    known = generic_resources(partition)
    kinds = {_kind(one) for one in known} | {(_kind(one)[0], "") for one in known}
    for one in asked.split(","):
        if _kind(one) not in kinds:
            there = f"there are {some(known, 8)}" if known else "there are none"
            raise UserError(f"--slurm: no node has gres={one}: {there}")


def _kind(resource: str) -> tuple[str, str]:
    """Name and type of a generic resource: of ``gpu:h100:2`` gpu and h100, of ``gpu:2`` gpu and nothing."""
    name, *more = resource.split(":")
    return name, more[0] if more and not more[0][:1].isdigit() else ""


def _outside_brackets(text: str) -> list[str]:
    """Parts of a list by commas, those in parentheses left alone: ``gpu:h100:2(S:0,1),tmp:5``."""
    return re.split(r",(?![^(]*\))", text)


def _run(command: list[str]) -> str:
    """What a command of Slurm prints. Raises WorkerError with the last line that it says where it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_S, stdin=subprocess.DEVNULL, errors="replace"
        )
    except FileNotFoundError:
        raise WorkerError(f"there is no {command[0]} here") from None
    except subprocess.TimeoutExpired:
        raise WorkerError(f"{command[0]} has not answered in {TIMEOUT_S:g} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith("Try ")]
        said = re.sub(r"^\w+: (error: |fatal: )?", "", lines[-1]) if lines else f"ended with code {done.returncode}"
        raise WorkerError(f"{command[0]}: {one_line(said)}")
    return done.stdout

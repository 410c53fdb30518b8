"""What ``--slurm`` is given: options of sbatch by commas, and a few of our own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from vheatbench.errors import UserError

FLAGS = frozenset(
    {"contiguous", "exclusive", "hold", "no-requeue", "overcommit", "oversubscribe", "reboot", "spread-job"}
    | {"use-min-nodes"}
)
"""Options of sbatch that may stand without a value."""
OWN = frozenset({"array", "time", "shared"})
"""Words that are read here: shards and throttle, the time that is asked for, that the folder is on all nodes."""
TAKEN = {
    "error": "the logs lie in the run's folder",
    "input": "nothing is read from there",
    "ntasks": "every task of the array is one process",
    "open-mode": "logs are appended to",
    "output": "the logs lie in the run's folder",
    "parsable": "it is always",
    "requeue": "it is always, no-requeue turns it off",
    "signal": "it is TERM, 120 seconds before the end",
    "test-only": "--dry-run shows the script",
    "wait": "it is an option of vheatbench: --wait",
    "wrap": "the script is vheatbench's",
}
"""Options of sbatch that the script sets itself, and why."""


@dataclass(frozen=True)
class SlurmOptions:
    """How a job is to be submitted."""

    sbatch: dict[str, str | None] = field(default_factory=dict)
    """Options of sbatch without their dashes, in the order in which they were given; None for one without a value."""
    shards: int = 1
    throttle: int | None = None
    """How many tasks of the array may run at the same time."""
    time: str | None = None
    """As sbatch takes it; None for what is foreseen."""
    shared: bool = False
    """Whether the user says that every node has the output folder."""

    @property
    def requeue(self) -> bool:
        """Whether a task that was ended before its end may go back into the queue."""
        return "no-requeue" not in self.sbatch

    @property
    def gpus(self) -> bool:
        """Whether GPUs are asked for."""
        asked = ("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket")
        gres = re.split(r"[,+]", self.sbatch.get("gres") or "")
        return any(name in self.sbatch for name in asked) or any(one.split(":")[0] == "gpu" for one in gres)


def parse_slurm(text: str) -> SlurmOptions:
    """``partition=gpu,gres=gpu:h100:1,array=8%4,time=2:00:00`` to options.

    What follows a comma and is no ``name=value``, nor a known option without a value, belongs to the value before it:
    ``exclude=node1,node2``.

    Raises:
        UserError: it is not of that form, or gives what the job's script sets itself.
    """
    given: dict[str, str | None] = {}
    last = ""
    for word in text.split(","):
        name, equals, value = word.partition("=")
        name = name.strip().removeprefix("--")
        if equals and re.fullmatch(r"[a-z][a-z0-9-]*", name):
            if name in given:
                raise UserError(f"--slurm: {name} is given twice")
            given[name], last = value.strip(), name
        elif word.strip() in FLAGS:
            given[word.strip()], last = None, ""
        elif last:
            given[last] = f"{given[last]},{word.strip()}"
        else:
            raise UserError(
                f"--slurm: {word!r} is no option: give name=value by commas, for example partition=gpu,array=8"
            )
    for name, given_value in given.items():
        if name in TAKEN:
            raise UserError(f"--slurm: leave {name} out: {TAKEN[name]}")
        if given_value == "" or not re.fullmatch(r"[ !#-\[\]-~]*", given_value or ""):
            raise UserError(f'--slurm: {name}={given_value}: give a value of printable characters without " and \\')
    shards, throttle = _array(given.pop("array", None) or "1")
    time = given.pop("time", None)
    shared = given.pop("shared", None)
    if shared not in (None, "yes", "no"):
        raise UserError(f"--slurm: shared={shared}: give yes where every node has the output folder")
    return SlurmOptions(given, shards, throttle, None if time == "auto" else time, shared == "yes")


def _array(text: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"(?:1-)?([1-9][0-9]{0,6})(?:%([1-9][0-9]{0,6}))?", text)
    if match is None:
        raise UserError(f"--slurm: array={text}: give the number of shards, or 8%4 for 4 of 8 at a time")
    return int(match[1]), int(match[2]) if match[2] else None

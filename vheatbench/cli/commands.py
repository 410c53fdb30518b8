"""The commands by name: each is imported and built when it is called, not where it is only listed."""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from vheatbench.stop import heeded

COMMANDS = {
    "run": "Measure a suite: throughput, latency, FLOPs, peak memory of every case, each in a fresh process.",
    "ab": "Measure two sides in turns, as many rounds as it takes, and say what got worse.",
    "profile": "Take a step apart: share of time, FLOPs and memory by module, by part of the heat operator, "
    "by operator.",
    "compare": "Compare two runs, or two sets of runs, and say what got worse.",
    "report": "Write a self-contained HTML page: what it says in short, charts, tables, warnings, environment.",
    "show": "Print the table of a run, with what is wrong with the file and every warning.",
    "suites": "List the suites, with their number of cases on a CPU and on a GPU.",
    "models": "List what can be measured: the operators (op/...), vHeat, and everything in timm.",
    "env": "Show the fingerprint of machine and software that every run keeps.",
    "slurm": "See how a run on a cluster is (``run --slurm``), end it, go on with it.",
    "merge": "Merge shards (``run --shard i/n``) into one run.",
    "erf": "Where a layer's centre looks: effective receptive fields of one or several models, with intervals.",
    "export": "Write a run for another tool.",
    "export-model": "Write a model as ONNX or for OpenVINO, and check the file by running it.",
    "eval": "Top-1 and top-5 accuracy with intervals, loss and images/s of a model on labelled images, by resolution.",
    "convert": "Write a vHeat checkpoint as safetensors: one set of weights, made for one input size, safe to load.",
    "train": "Train every model of a recipe by the vHeat paper's procedure; accuracy and loss per epoch, "
    "speed and memory.",
    "heat": "Show heat conduction itself: fields, diffusivity, and the operator against theory.",
    "detect": "Detection: Mask R-CNN over any backbone, on a folder in COCO's format.",
    "segment": "Segmentation: UperNet over any backbone, on a folder in ADE20K's format.",
    "track": "Keep the history of runs, by branch and machine, and show where it changed.",
}
"""Name to the first line of the command's own help (a test compares them), in the order in which they are listed.

The command ``a-name`` is in ``cli/a_name.py``: an ``app`` where it has commands of its own, or the function ``a_name``.
"""


class LazyCommand(TyperCommand):
    """What a list of commands and shell completion show of a command, and the way to the command itself."""

    def load(self) -> Any:
        """The command, with its options."""
        name = str(self.name).replace("-", "_")
        module = importlib.import_module(f"vheatbench.cli.{name}")
        if hasattr(module, "app"):
            command: Any = typer.main.get_group(module.app)
        else:
            single = typer.Typer(add_completion=False)
            single.command(self.name)(getattr(module, name))
            command = typer.main.get_command(single)
        command.name = self.name
        return command

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Every call of a command and every completion of its options begins here."""
        return self.load().make_context(*arguments, **options)


class Commands(TyperGroup):
    """All commands of vheatbench."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for name, line in COMMANDS.items():
            self.add_command(LazyCommand(name, help=line))

    def invoke(self, ctx: Any) -> Any:
        """Every command can be stopped: what nobody in it has answered is answered here."""
        with heeded():
            return super().invoke(ctx)

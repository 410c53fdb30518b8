"""A worker process in milliseconds, whose timings the code under test makes up: ``run.process.WORKER`` for ``ab``.

A subject ``own:model`` is the function ``model(round)`` of the module ``own`` in the version that is measured; it
returns the samples in seconds and the multiply-adds. ``MACHINE`` in that module names the processor. Standard library
only: importing pydantic takes half a second. ``python -m support.ab_worker ARGUMENTS`` is the command line with such
workers. The folder ``STUB`` in the environment gets ``log``, with side, subject and round of every measurement; a file
``hold`` in it names the first round that does not end while the file is there.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

HERE = Path()
"""The folder ``STUB``."""


def main() -> None:
    """Like ``vheatbench.run.worker.main``."""
    global HERE
    HERE = Path(os.environ.get("STUB", "."))
    sys.path.insert(0, os.getcwd())
    task = json.loads(sys.stdin.buffer.read())
    answer = measured(task) if "case" in task else inspected(task)
    os.write(int(sys.argv[1]), json.dumps(answer).encode())


def inspected(task: dict[str, Any]) -> dict[str, Any]:
    problems, machine = [], "a processor"
    for case in task["cases"]:
        module, _, name = case["subject"].partition(":")
        try:
            own = importlib.import_module(module)
            machine = getattr(own, "MACHINE", machine)
            if not hasattr(own, name):
                problems.append(f"model {case['subject']!r}: {module!r} has no function {name!r}")
        except Exception as error:
            problems.append(f"model {case['subject']!r}: cannot import {module!r} ({type(error).__name__}: {error})")
    environment = {"host": "light", "cpu": {"name": machine, "affinity_cores": 2}, "packages": {"torch": "2.6"}}
    return {"environment": environment, "cuda_devices": 0, "problems": problems}


def measured(task: dict[str, Any]) -> dict[str, Any]:
    case = task["case"]
    started = datetime.now(timezone.utc).isoformat()
    with (HERE / "log").open("a") as log:
        log.write(f"{Path.cwd().name} {case['subject']} {task['round']}\n")
    while held(task["round"]):
        time.sleep(0.01)
    if task.get("others"):
        told({})
    module, _, name = case["subject"].partition(":")
    record = {"case": case, "case_id": task_id(case), "round": task["round"], "started": started}
    try:
        samples, macs = getattr(importlib.import_module(module), name)(task["round"])
    except MemoryError as error:
        return {**record, "status": "oom", "reason": f"out of memory: {error}"}
    except Exception as error:
        return {**record, "status": "failed", "reason": f"{type(error).__name__}: {error}"}
    turns = []
    if task.get("others"):
        while told({"samples": samples})["seconds"] is not None:
            turns.append(len(samples))
    value = sorted(samples)[len(samples) // 2]
    metrics = {
        "latency_s": {"value": value, "unit": "s", "direction": "lower", "how": "made up"},
        "macs": {"value": macs, "unit": "MAC/image", "direction": "lower", "how": "made up", "deterministic": True},
    }
    taken = {"unit": "s", "values": samples * max(1, len(turns)), "turns": turns}
    return {**record, "status": "ok", "metrics": metrics, "samples": {"latency_s": taken}}


def held(round_: int) -> bool:
    """Whether this round may not end yet."""
    try:
        return round_ >= int((HERE / "hold").read_text())
    except FileNotFoundError:
        return False


def told(event: dict[str, Any]) -> dict[str, Any]:
    """What the runner answers to an event when it is this worker's turn."""
    descriptor = int(sys.argv[3])
    os.write(descriptor, json.dumps(event).encode() + b"\n")
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(descriptor, 4096) or os._exit(1)
    answer: dict[str, Any] = json.loads(line)
    return answer


def task_id(case: dict[str, Any]) -> str:
    """As ``Case.id`` for the few axes that these tests vary."""
    import hashlib

    content = {"subject": case["subject"], "resolution": case["resolution"]}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


if __name__ == "__main__":
    from support import forked
    from vheatbench import __main__ as command_line
    from vheatbench.run import process

    process.WORKER = "support.ab_worker"
    process._Process = forked.Popen  # type: ignore[misc, assignment]
    command_line.main()

"""What pytest-benchmark wrote (``--benchmark-json FILE``) as an entry of the history."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from vheatbench.errors import UserError
from vheatbench.files import MIB, read_bytes, reason_of
from vheatbench.stats import median, median_interval
from vheatbench.store.history import HistoryEntry, Reading, TrackedCase, TrackedMetric, thinned
from vheatbench.text import one_line

LATENCY = "latency_s"
MOST_BYTES = 512 * MIB
"""Of a file with all raw data."""
NO_COMMIT = frozenset({"unversioned", "unknown"})
"""What pytest-benchmark gives for a commit's id outside a checkout, and where git failed."""
MACHINE_KEYS = frozenset({"system", "machine", "processor", "python_implementation", "python_version", "cpu"})
CPU_KEYS = ("brand_raw", "brand", "arch", "count")
VOLATILE_KEYS = frozenset({"node", "release", "python_compiler", "python_build", "python_implementation_version"})
"""Of ``machine_info``: what differs between machines that are alike."""


class Benchmarks(NamedTuple):
    """What a file of pytest-benchmark holds."""

    entry: HistoryEntry
    problems: list[str]
    """Benchmarks that cannot be read and were left out, by name, one line each."""


def read_pytest_benchmark(path: str | Path, branch: str | None = None, commit: str | None = None) -> Benchmarks:
    """The benchmarks of a file as cases named ``pytest:<fullname>``.

    ``latency_s`` is the median of the rounds; with raw data (``--benchmark-save-data`` or
    ``--benchmark-json``) its 95 % order-statistic interval goes with it, and the data, thinned where there
    are more than 200. Numbers in ``extra_info``, also one level deep, become metrics ``extra:<name>``
    without a direction; ``x_low`` and ``x_high`` beside ``x`` are its interval. Benchmarks that failed are
    not in such a file.

    The fingerprint is made of ``machine_info``: system, processor, Python's major and minor version, and
    whatever a ``pytest_benchmark_update_machine_info`` hook added (torch, threads, GPU).

    A benchmark that cannot be read is left out and named in ``problems``. Raises UserError for a file that is none of
    pytest-benchmark's, or has no benchmark in it that can be read.
    """
    path = Path(path)
    data, content = _read(path)
    benchmarks = content["benchmarks"]
    if not benchmarks:
        raise UserError(f"{path} holds no benchmark: all of them failed, were skipped or deselected")
    machine = _mapping(content.get("machine_info"))
    code = _mapping(content.get("commit_info"))
    metrics: dict[str, TrackedMetric] = {}
    cases: dict[str, TrackedCase] = {}
    problems: list[str] = []
    for number, benchmark in enumerate(benchmarks):
        try:
            case, measured = _case(benchmark)
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            name = one_line(str(_mapping(benchmark).get("fullname") or f"benchmark {number}"))
            problems.append(f"{path}: {name} cannot be read and is left out: {_reason(error)}")
            continue
        if case.label in cases:
            raise UserError(f"{path}: two benchmarks are named {case.label}: give files that were not joined by hand")
        cases[case.label] = case
        metrics |= measured
    if not cases:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{more}: nothing is left of the file")
    known_branch = str(code.get("branch") or "")
    known_commit = str(code.get("id") or "")
    if known_commit in NO_COMMIT:
        known_commit = ""
    try:
        entry = HistoryEntry(
            run_id=hashlib.sha256(data).hexdigest()[:12],
            device="cpu",
            file=path.name,
            suite="pytest-benchmark",
            when=str(content.get("datetime")),
            # a detached head is "(detached head)", what is no checkout "(unknown)" and "unversioned"
            branch=branch if branch is not None else "" if known_branch.startswith("(") else known_branch,
            commit=commit if commit is not None else known_commit,
            dirty=bool(code.get("dirty")) and commit in (None, known_commit),
            fingerprint=_fingerprint(machine),
            machine=_words(machine),
            metrics=metrics,
            cases=cases,
        )
    except ValidationError as error:
        raise UserError(f"{path}: {_reason(error)}") from None
    return Benchmarks(entry, problems)


def _reason(error: Exception) -> str:
    """Why something could not be read, in one line."""
    if isinstance(error, ValidationError):
        return one_line(error.errors(include_url=False)[0]["msg"])
    return one_line(str(error) if type(error) is ValueError else repr(error))


def _read(path: Path) -> tuple[bytes, dict[str, Any]]:
    try:
        data = read_bytes(path, MOST_BYTES)
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason_of(error)}") from None
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {one_line(str(error))}") from None
    if not isinstance(content, dict) or not isinstance(content.get("benchmarks"), list):
        raise UserError(f"{path} was not written by pytest-benchmark: it has no list of benchmarks")
    return data, content


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _case(benchmark: Mapping[str, Any]) -> tuple[TrackedCase, dict[str, TrackedMetric]]:
    """A benchmark as a case, and what its metrics are."""
    stats = benchmark["stats"]
    case = TrackedCase(label=f"pytest:{benchmark['fullname']}")
    values = [float(value) for value in stats.get("data") or ()]
    metrics = {LATENCY: TrackedMetric(unit="s", direction="lower")}
    if values:
        case.samples[LATENCY] = thinned(values)
        interval = median_interval(values)
        # an interval of one value covers nothing
        ends = (interval.low, interval.high) if len(values) > 1 else (None, None)
        case.readings[LATENCY] = (_positive(median(values)), *ends, len(values))
    else:
        case.readings[LATENCY] = (_positive(stats["median"]), None, None, int(stats["rounds"]))
    for name, reading in _extras(_mapping(benchmark.get("extra_info"))).items():
        case.readings[f"extra:{name}"] = reading
        metrics[f"extra:{name}"] = TrackedMetric(unit="")
    return case, metrics


def _positive(value: Any) -> float:
    number = float(value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"a time of {number} s")
    return number


def _extras(info: Mapping[str, Any]) -> dict[str, Reading]:
    found: dict[str, Reading] = {}
    for key, value in info.items():
        numbers = _numbers(value if isinstance(value, dict) else {"": value})
        for name, number in numbers.items():
            stem = name.removesuffix("_low").removesuffix("_high")
            if stem != name and stem in numbers:
                continue  # shown as the end of an interval
            low, high = numbers.get(f"{name}_low"), numbers.get(f"{name}_high")
            found[f"{key}.{name}" if name else key] = (number, low, high, 1)
    return found


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }


def _fingerprint(machine: Mapping[str, Any]) -> str:
    cpu = _mapping(machine.get("cpu"))
    facts = {key: value for key, value in machine.items() if key not in MACHINE_KEYS | VOLATILE_KEYS}
    facts |= {key: machine.get(key) for key in ("system", "machine", "processor", "python_implementation")}
    facts["python"] = str(machine.get("python_version") or "").split(".")[:2]
    facts["cpu"] = [cpu.get(key) for key in CPU_KEYS]
    text = json.dumps(facts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _words(machine: Mapping[str, Any]) -> str:
    cpu = _mapping(machine.get("cpu"))
    name = cpu.get("brand_raw") or cpu.get("brand") or machine.get("processor") or machine.get("machine")
    return f"{name or 'an unknown processor'} ({cpu.get('count', '?')} cores)"

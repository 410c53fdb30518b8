"""How long pages and histories of many records take: ``python benchmarks/large_report.py --records 10000``.

The run is made up: shapes of a long sweep (models, sizes, batches, dtypes, rounds), of which only the numbers are
invented. Each command is a process of its own; the page is opened in Chromium where there is one.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from vheatbench.case import Case
from vheatbench.store.schema import Header, Metric, Record, Samples
from vheatbench.store.write import RunWriter

SIZES = (224, 320, 448, 640, 768, 1024, 1280, 1536)


def main() -> None:
    """Make the run, then time the commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=1, help="rounds among the records")
    parser.add_argument("--runs", type=int, default=10_000, help="runs of the history; 0 for none")
    parser.add_argument("--repeats", type=int, default=3)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder)
        write_run(results, sweep(wanted.records, wanted.rounds), "sweep", "00000000")
        page = results / "page.html"
        seconds = timed(["report", "sweep", "--results", str(results), "-o", str(page)], wanted.repeats)
        print(f"report of {wanted.records} records: {seconds:.1f} s, {page.stat().st_size / 1e6:.2f} MB")
        print(f"show --json: {timed(['show', 'sweep', '--results', str(results), '--json'], wanted.repeats):.1f} s")
        browser = shutil.which("chromium")
        if browser is not None:
            print(f"opened in Chromium: {opened(browser, page):.1f} s")
        if wanted.runs:
            history = results / "history"
            history.mkdir()
            write_history(history, wanted.runs)
            told = timed(["track", "show", "--results", str(history)], wanted.repeats)
            print(f"track show of {wanted.runs} runs: {told:.1f} s")


def sweep(count: int, rounds: int) -> list[Record]:
    """Records of vHeat and other models over sizes, batches and dtypes."""
    found: list[Record] = []
    chance = random.Random(0)
    batch = 0
    while len(found) < count:
        batch += 1
        for dtype in ("float32", "bfloat16"):
            for place, subject in enumerate(("vheat-t", *(f"model-{i}" for i in range(23)))):
                for size in SIZES:
                    case = Case(subject=subject, resolution=size, batch=batch, dtype=dtype)  # type: ignore[arg-type]
                    for number in range(rounds):
                        latency = 0.01 * batch * (1 + place) * (size / 224) ** 2.2 * chance.uniform(0.95, 1.05)
                        found.append(a_record(case, number, latency))
    return found[:count]


def a_record(case: Case, number: int, latency: float) -> Record:
    """An ``ok`` record with what a real one has."""
    assert isinstance(case.batch, int)
    clock = {"unit": "s", "direction": "lower", "how": "median of 10 samples", "confidence": 0.95}
    macs = 4.5e9 * case.pixels / 224**2
    exact = {"direction": "lower", "how": "counted on the meta device", "deterministic": True}
    metrics = {
        "latency_s": Metric(value=latency, low=0.99 * latency, high=1.01 * latency, **clock),  # type: ignore[arg-type]
        "throughput_images_per_s": Metric(
            value=case.batch / latency, low=0.99 * case.batch / latency, high=1.01 * case.batch / latency,
            unit="images/s", direction="higher", how="batch over latency", confidence=0.95,
        ),
        "macs": Metric(value=macs, unit="MAC/image", **exact),  # type: ignore[arg-type]
        "flops": Metric(value=2 * macs, unit="FLOP/image", **exact),  # type: ignore[arg-type]
        "params": Metric(value=28e6, unit="parameters", **exact),  # type: ignore[arg-type]
        "peak_memory_bytes": Metric(value=1e3 * case.pixels, unit="bytes", direction="lower", how="growth"),
    }  # fmt: skip
    samples = {"latency_s": Samples(unit="s", values=[latency] * 10, warmup=[latency] * 3, stopped_by="precision")}
    return Record(
        case=case, case_id=case.id, round=number, status="ok", metrics=metrics, samples=samples,
        started="2026-01-02T03:04:05+00:00", elapsed_s=3.0, subject={"form": "deploy form", "weights": "random"},
    )  # fmt: skip


def write_run(folder: Path, records: Sequence[Record], suite: str, id_: str) -> Path:
    """A finished run file; not synchronised line by line, as a real one is."""
    header = Header(
        run_id=id_, suite=suite, description="Made up.", command="vheatbench run", created="2026-01-02T03:04:05+00:00",
        environment={"host": "h", "cpu": {"name": "A processor", "affinity_cores": 2}, "gpus": []},
        plan=list({record.case_id: record.case for record in records}.values()),
        policy={}, rounds=1 + max(record.round for record in records),
    )  # fmt: skip
    with RunWriter.create(folder, header) as writer:
        for record in records:
            writer.append(record)
        return writer.finish()


def write_history(folder: Path, runs: int) -> None:
    """A history of that many runs, by adding one and repeating its line with other times and numbers."""
    import json

    case = Case(subject="vheat-t", resolution=224)
    write_run(folder, [a_record(case, 0, 0.1)], "nightly", "11111111")
    subprocess.run(
        [sys.executable, "-m", "vheatbench", "track", "add", "latest", "--results", str(folder)],
        check=True, capture_output=True,
    )  # fmt: skip
    path = folder / "history.jsonl"
    line = json.loads(path.read_text().splitlines()[-1])
    text = json.dumps(line)
    lines = []
    for i in range(runs):
        day = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(1.6e9 + 3600 * i))
        changed = text.replace("11111111", f"{i:08x}").replace("2026-01-02T03:04:05+00:00", day)
        lines.append(changed)
    path.write_text("\n".join(lines) + "\n")


def timed(arguments: Sequence[str], repeats: int) -> float:
    """Seconds of the quickest of several runs of a command."""
    taken = []
    for _ in range(repeats):
        started = time.monotonic()
        subprocess.run([sys.executable, "-m", "vheatbench", *arguments], check=True, capture_output=True)
        taken.append(time.monotonic() - started)
    return min(taken)


def opened(browser: str, page: Path) -> float:
    """Seconds until a headless browser has laid the page out and printed its tree."""
    started = time.monotonic()
    subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()],
        check=True, capture_output=True,
    )  # fmt: skip
    return time.monotonic() - started


if __name__ == "__main__":
    main()

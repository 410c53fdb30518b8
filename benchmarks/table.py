"""Markdown tables of benchmark files: ``python benchmarks/table.py FILE.json ...``."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

NAMES = {"vheat_tiny": "T", "vheat_small": "S", "vheat_base": "B"}


def main(paths: list[str]) -> None:
    """Print one table per kind of benchmark and allocator."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for path in paths:
        for entry in json.loads(Path(path).read_text())["benchmarks"]:
            kind = entry["name"].split("[")[0]
            info = entry["extra_info"]
            where = f", {info['instructions']}" if "instructions" in info else ""
            tables.setdefault(f"{kind}, malloc {info['malloc']}{where}", []).append(info)
    for title, rows in tables.items():
        print(f"\n### {title}\n")
        columns = [key for key, value in rows[0].items() if isinstance(value, dict) and "wall" in value]
        saves = "saved_bytes" in rows[0]
        head = ["model", "size", "batch", *(["dtype"] if "dtype" in rows[0] else []), "ms, official ms"]
        head += [f"{name}: wall (cpu)" for name in columns] + (["saved for backward, MiB"] if saves else [])
        print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        for row in rows:
            first = row[columns[0]]
            cells = [NAMES[row["model"]], str(row["size"]), str(row["batch"])]
            cells += [row["dtype"].removeprefix("torch.")] if "dtype" in row else []
            cells += [f"{first['ms']:.0f}, {first['baseline_ms']:.0f}"]
            cells += [_ratio(row[name]) for name in columns]
            if saves:
                mib = {key: value / 2**20 for key, value in row["saved_bytes"].items()}
                cell = f"{mib['ours']:.0f} of {mib['official']:.0f} ({mib['ours'] / mib['official'] - 1:+.0%})"
                if "ours autocast" in mib:
                    cell += f"; autocast {mib['ours autocast']:.0f} of {mib['official autocast']:.0f}"
                cells.append(cell)
            print("| " + " | ".join(cells) + " |")
        means = []
        for name in columns:
            wall, cpu = ([row[name][clock] for row in rows] for clock in ("wall", "cpu"))
            means.append(f"{name} {_mean(wall):.2f} (cpu {_mean(cpu):.2f}), least {min(wall):.2f}")
        print(f"\nGeometric means: {'; '.join(means)}.")


def _ratio(found: dict[str, Any]) -> str:
    return f"{found['wall']:.2f} [{found['wall_low']:.2f}, {found['wall_high']:.2f}] ({found['cpu']:.2f})"


def _mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


if __name__ == "__main__":
    main(sys.argv[1:])

"""The catalogue of metrics: every metric that is measured has its line, and a new one needs no more than that."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from support.records import record, run_of
from vheatbench import metrics
from vheatbench.analysis.history import entries_of
from vheatbench.analysis.outcomes import outcomes_of
from vheatbench.cli.table import print_run
from vheatbench.metrics import CATALOGUE, MetricInfo, Role, columns, info_of, names, with_role
from vheatbench.report.exports import markdown
from vheatbench.report.markdown import markdown_of
from vheatbench.report.records_table import records_table
from vheatbench.store import Metric, Record
from vheatbench.store.schema import Footer
from vheatbench.verdict.compare import compare_runs
from vheatbench.verdict.regroup import log_ratios
from vheatbench.verdict.settings import Settings
from vheatbench.verdict.text import rows

EXAMPLES = sorted((Path(__file__).parents[1] / "results" / "example").glob("*.jsonl"))


def test_every_metric_of_the_example_has_a_line():
    lines = [json.loads(line) for path in EXAMPLES for line in path.read_text(encoding="utf-8").splitlines()]
    found = {name for line in lines if line["line"] == "record" for name in line["metrics"]}
    assert found
    assert found <= CATALOGUE.keys()


def test_a_line_is_found_under_its_name_and_no_heading_stands_twice_in_a_table():
    assert all(name == info.name for name, info in CATALOGUE.items())
    for role in get_args(Role):
        headings = [info.heading for info in with_role(role)]
        short = [info.terminal_heading for info in with_role(role)]
        assert headings, role
        assert len(set(headings)) == len(headings), role
        assert len(set(short)) == len(short) or role in ("timed", "portable"), role  # no tables


def test_behind_a_metric_of_a_step_stands_the_same_of_an_image():
    assert CATALOGUE["peak_memory_bytes"].per_image == "peak_memory_per_image_bytes"
    found = CATALOGUE["peak_memory_per_image_bytes"]
    assert (found.step, found.heading, found.terminal_heading) == (
        "peak_memory_bytes", "peak memory per image (MiB)", "peak MiB/image",
    )  # fmt: skip
    assert CATALOGUE["latency_per_image_s"].title == "time per image"  # its own line comes before
    assert all(not CATALOGUE[name].step for role in get_args(Role) for name in names(role))
    assert "latency_per_image_s" in {info.name for info in with_role("timed")} - set(names("timed"))


def test_what_has_no_line_is_called_by_its_name_in_a_unit_that_people_read():
    assert info_of("warp_time_s", "s") == MetricInfo("warp_time_s", "warp_time_s", "ms", 1e3)
    assert info_of("warps", "furlongs").heading == "warps (furlongs)"
    assert info_of("warps").heading == "warps"


class Held:
    def __init__(self, **units: str) -> None:
        self.units = units


def test_columns_are_those_that_any_record_fills_in_one_order_and_unknown_ones_last():
    found = columns(
        "records", [Held(warps="furlongs", params="parameters"), Held(latency_s="s", weights_bytes="bytes")]
    )
    assert [info.name for info in found] == ["latency_s", "params", "warps"]


def test_the_catalogue_is_read_when_it_is_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(metrics.CATALOGUE, "warps", MetricInfo("warps", "warps", "kWarp", 1e-3, ("records",)))
    assert [info.heading for info in columns("records", [Held(warps="")])] == ["warps (kWarp)"]
    assert "warps" in names("records")


@pytest.fixture
def heat_loss(monkeypatch: pytest.MonkeyPatch) -> MetricInfo:
    """A metric of timed cases that one line was written for."""
    info = MetricInfo("heat_loss_j", "heat lost", "mJ", 1e3, ("timed", "models", "records", "summary"), "lost mJ")
    monkeypatch.setitem(metrics.CATALOGUE, info.name, info)
    return info


def with_heat_loss(one: Record, value: float, exact: bool = True) -> Record:
    taken = Metric(value=value, unit="J", direction="lower", how="a calorimeter", deterministic=exact)
    return one.model_copy(update={"metrics": {**one.metrics, "heat_loss_j": taken, "other_loss_j": taken}})


def test_a_new_metric_is_in_every_table(heat_loss: MetricInfo, capsys: pytest.CaptureFixture[str]):
    run = run_of([with_heat_loss(record("vheat-t", size, 0.1), 0.0125) for size in (224, 448)])
    print_run(run)
    shown = capsys.readouterr().out
    assert "lost mJ" in shown
    assert "12.50" in shown
    table = records_table(outcomes_of(run.records))
    place = table.headings.index("heat lost (mJ)")
    assert [row.cells[place].value for row in table.rows] == ["12.50", "12.50"]
    assert "heat lost (mJ)" in markdown_of([run])
    finished = replace(run, footer=Footer(records=2, sha256="0" * 64, finished="2026-01-02T03:04:05+00:00"))
    exported = markdown(entries_of(finished)).text
    assert "| heat lost (mJ) |" in exported
    assert "| 12.50 |" in exported
    # what has no line stands beside it, by its name and in its own unit
    assert "other_loss_j J" in shown
    assert "other_loss_j (J)" in table.headings
    assert "| other_loss_j (J) |" in exported


@pytest.mark.parametrize(
    ("exact", "shown"),
    [(True, ("0.01 J", "0.02 J", "regressed")), (False, ("10.00 mJ", "20.00 mJ", "inconclusive"))],
)
def test_a_new_metric_can_be_compared_and_asked_for(exact: bool, shown: tuple[str, ...], heat_loss: MetricInfo):
    base, head = (
        run_of([with_heat_loss(record("vheat-t", 224, 0.1), value, exact)], run_id=f"run{value}")
        for value in (0.01, 0.02)
    )
    comparison = compare_runs([base], [head], Settings(metrics=(heat_loss.name,)))
    (row,) = rows(comparison)
    assert (row.metric, (row.base, row.head, row.verdict)) == ("heat_loss_j", shown)
    assert heat_loss.name in {info.name for info in with_role("timed")}


@pytest.mark.parametrize(("allowance", "verdict"), [(0.0, "incomparable"), (0.01, "suspect")])
def test_a_new_metric_that_may_be_zero_says_what_it_varies_by(
    allowance: float, verdict: str, heat_loss: MetricInfo, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(metrics.CATALOGUE, heat_loss.name, replace(heat_loss, allowance=allowance))
    base, head = (
        [
            with_heat_loss(record("vheat-t", 224, 0.1), value, exact=False).model_copy(update={"round": number})
            for number in range(10)
        ]
        for value in (0.0, 0.02)
    )
    sides = [
        run_of(records, run_id=f"{name}0001", rounds=10, pairing={"id": "one", "side": name})
        for name, records in (("base", base), ("head", head))
    ]
    comparison = compare_runs(sides[:1], sides[1:], Settings(metrics=(heat_loss.name,)))
    assert [case.verdict for case in comparison.cases if case.metric == heat_loss.name] == [verdict]
    expected = [math.log(3)] * 10 if allowance else []
    assert log_ratios(base, head, heat_loss.name) == pytest.approx(expected)

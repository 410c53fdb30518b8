"""The catalogue of metrics: every metric that is measured has its line, and a new one needs no more than that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from vheatbench import metrics
from vheatbench.metrics import CATALOGUE, MetricInfo, Role, columns, info_of, names, with_role

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
        assert len(set(short)) == len(short) or role == "timed", role  # no table


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

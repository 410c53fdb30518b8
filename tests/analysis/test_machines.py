"""Machines side by side: the spread, and the odd one."""

from __future__ import annotations

import pytest

from support.records import record, run_of
from vheatbench.analysis.machines import machines_of, marks_of, spread_of
from vheatbench.report.page import render
from vheatbench.store import Run
from vheatbench.store.merge import write_merged
from vheatbench.store.read import read_run


def shards(slow: dict[int, float], count: int = 4) -> list[Run]:
    """A shard on each of several nodes, all with the case at 32; the times of some nodes are longer by a factor."""
    runs = []
    for number in range(1, count + 1):
        factor = slow.get(number, 1.0) * (1 + 0.002 * number)
        records = [
            record(name, size, 0.001 * size * factor) for size in (32, 32 * (1 + number)) for name in ("vit-s", "vit-b")
        ]
        for one in records:
            one.conditions["host"] = "cluster"
            one.conditions["slurm"] = {"node": f"node{number}", "job_id": "1"}
        common = [one.case_id for one in records[:2]]
        runs.append(run_of(records, shard=f"{number}/{count}", common=common, run_id=f"run{number}", rounds=1))
    return runs


def test_the_spread_is_that_of_what_all_measured() -> None:
    spread = spread_of(machines_of(shards({})))
    assert [one.machine.node for one in spread.standings] == ["node1", "node2", "node3", "node4"]
    assert spread.cases == 2
    assert spread.spread == pytest.approx(1.008 / 1.002 - 1, rel=1e-9)
    assert not spread.outlying
    assert [one.machine.records for one in spread.standings] == [4] * 4


def test_an_outlying_machine_is_named_and_its_records_are_marked(tmp_path) -> None:
    runs = shards({1: 1.3})
    machines = machines_of(runs)
    (odd,) = spread_of(machines).outlying
    assert odd.machine.node == "node1"
    assert odd.slowdown == pytest.approx(1.302 / 1.0065, rel=0.01)
    marks = marks_of(machines)
    assert list(marks) == [("node1", "")]
    run = read_run(write_merged(runs, tmp_path, machines=machines, marks=marks))
    assert len(run.records) == 10
    assert run.header.environment["volatile"]["merge"]["warnings"] == []
    marked = [one for one in run.records if "absolute figures do not compare" in " ".join(one.warnings)]
    assert {one.conditions["slurm"]["node"] for one in marked} == {"node1"}
    # of what all measured, a record of a machine that is like the others is kept
    assert {one.case.resolution[0] for one in marked} == {64}
    page = render([run])
    assert "Unlike the others: node1 (1.29 times)" in page
    assert "30.0" in page or "29." in page


def test_two_machines_say_nothing_of_which_is_odd() -> None:
    spread = spread_of(machines_of(shards({1: 1.5}, count=2)))
    assert not spread.outlying
    assert spread.spread is not None
    assert spread.spread > 0.4


def test_a_machine_without_the_common_cases_is_not_known() -> None:
    runs = shards({1: 1.5})
    runs[0].records[:] = runs[0].records[2:]
    spread = spread_of(machines_of(runs))
    assert spread.standings[0].slowdown is None
    assert not spread.outlying
    assert spread_of([]).spread is None

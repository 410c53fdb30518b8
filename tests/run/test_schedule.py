"""What is measured next: rounds, studies, and what a budget goes to."""

from __future__ import annotations

import pytest

from support.clock import Clock
from support.runner import a_case
from vheatbench.case import Case
from vheatbench.run import schedule as module
from vheatbench.run.schedule import LATE, MOST_ROUNDS, GroupRound, Schedule
from vheatbench.run.task import StudyTask
from vheatbench.store import Record

SMALL, LARGE = [[a_case(name, batch=batch) for name in ("a", "b")] for batch in (1, 2)]
PLAN = [SMALL, LARGE]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


def a_record(case: Case, round_: int, status: str = "ok") -> Record:
    reason = None if status == "ok" else "as asked"
    return Record(
        case=case,
        case_id=case.id,
        round=round_,
        status=status,  # type: ignore[arg-type]
        reason=reason,
        started="2026-01-01T00:00:00Z",
        elapsed_s=4.0,
        spent_s={"samples": 1.0, "wait": 2.0, "start": 1.0},
    )


def carried_out(schedule: Schedule, clock: Clock, seconds: dict[int, float]) -> list[tuple[int, int]]:
    """Batch and round of everything that is handed out, each round of a batch taking so many seconds."""
    order = []
    while (item := schedule.next()) is not None:
        assert isinstance(item, GroupRound)
        batch = item.cases[0].batch
        assert isinstance(batch, int)
        order.append((batch, item.round))
        clock.now += seconds[batch]
        schedule.finished(item, [a_record(case, item.round) for case in item.cases], seconds[batch])
    return order


def test_without_a_budget_every_group_has_its_rounds_forth_and_back() -> None:
    schedule = Schedule(PLAN, 3)
    items = list(iter(schedule.next, None))
    assert [(item.cases[0].batch, item.round) for item in items] == [(1, 0), (2, 0), (2, 1), (1, 1), (1, 2), (2, 2)]
    subjects = [case.subject for item in items for case in item.cases]
    assert "".join(subjects) == "ababbabaabab", "a steady drift falls on both alike"
    assert all(item.until is None for item in items)
    assert schedule.end is None


def test_what_a_run_holds_is_not_handed_out_again_and_studies_come_last() -> None:
    study = StudyTask(
        study="s", label="s", cases=[a_case("x", mode="erf"), a_case("y", mode="erf")], settings={}, run_path="."
    )
    done = {(SMALL[0].id, 0), (LARGE[0].id, 0), (LARGE[1].id, 0), (study.cases[0].id, 0)}
    first, second = iter(Schedule(PLAN, 1, [study], done).next, None)
    assert first == GroupRound((SMALL[1],), 0)
    assert second.cases == study.cases[1:]


def test_a_budget_goes_to_what_is_known_worst(clock: Clock) -> None:
    known = {1: [0.1] * 100, 2: [0.5, 0.3, 0.05] + [0.01] * 100}

    def uncertainty(records: list[Record]) -> float:
        batch = records[0].case.batch
        return known[batch][len(records) // 2 - 1]  # type: ignore[index]

    order = carried_out(Schedule(PLAN, 1, seconds=80, uncertainty=uncertainty), clock, {1: 10.0, 2: 10.0})
    assert order == [(1, 0), (2, 0), (2, 1), (2, 2), (1, 1), (1, 2), (1, 3), (1, 4)]


def test_models_have_twice_the_further_time_of_operators_however_badly_either_is_known(clock: Clock) -> None:
    operators = [a_case(name, batch=3) for name in ("op/heat", "op/attention")]
    worse = {1: 9.0, 2: 1.0, 3: 5.0}
    schedule = Schedule(
        [*PLAN, operators], 1, seconds=430, uncertainty=lambda records: worse[records[0].case.batch]  # type: ignore[index]
    )  # fmt: skip
    order = carried_out(schedule, clock, {1: 10.0, 2: 10.0, 3: 10.0})
    further = [batch for batch, number in order if number]
    assert set(further) == {1, 3}
    assert len(order) == 43
    models, others = sum(batch != 3 for batch, _ in order), sum(batch == 3 for batch, _ in order)
    assert abs(models - 2 * others) <= 2


def test_rounds_that_the_time_has_room_for_are_there_for_the_ratios_alone(clock: Clock) -> None:
    schedule = Schedule([SMALL], 2, seconds=60)
    items = []
    while (item := schedule.next()) is not None:
        assert isinstance(item, GroupRound)
        items.append(item)
        clock.now += 10
        schedule.finished(item, [a_record(case, item.round) for case in item.cases], 10.0)
    assert [item.further for item in items] == [False, False, True, True, True, True]


def test_a_budget_ends_on_time_whatever_the_groups_take(clock: Clock) -> None:
    begun = clock.now
    schedule = Schedule(PLAN, 1, seconds=114, uncertainty=lambda records: float(records[0].case.batch))  # type: ignore[arg-type]
    order = carried_out(schedule, clock, {1: 7.0, 2: 30.0})
    assert 0.9 * 114 <= clock.now - begun <= 1.1 * 114
    assert order[:4] == [(1, 0), (2, 0), (2, 1), (2, 2)]
    assert {batch for batch, _ in order[4:]} == {1}, "what no longer fits leaves the time to the others"
    assert schedule.end == begun + LATE * 114


def test_the_first_rounds_of_a_budget_have_shares_of_it_by_what_they_cost(clock: Clock) -> None:
    small, large = [a_case("a"), a_case("b")], [case.model_copy(update={"resolution": (2240, 2240)}) for case in SMALL]
    schedule = Schedule([small, large], 1, seconds=100)
    first = schedule.next()
    assert isinstance(first, GroupRound)
    assert first.until is not None
    assert 1 <= first.until - clock.now <= 10
    second = schedule.next()
    assert isinstance(second, GroupRound)
    assert second.until == pytest.approx(clock.now + 60)


def test_a_budget_that_is_over_leaves_the_rest_out(clock: Clock) -> None:
    schedule = Schedule(PLAN, 1, seconds=5)
    assert schedule.next() is not None
    clock.now += 6
    assert schedule.next() is None


def test_a_group_with_nobody_left_to_compare_has_no_further_rounds(clock: Clock) -> None:
    schedule = Schedule([SMALL], 1, seconds=100)
    first = schedule.next()
    assert isinstance(first, GroupRound)
    clock.now += 1
    schedule.finished(first, [a_record(SMALL[0], 0), a_record(SMALL[1], 0, "failed")], 1.0)
    assert schedule.next() is None


def test_one_alone_is_measured_once_and_rounds_have_an_end(clock: Clock) -> None:
    assert carried_out(Schedule([SMALL[:1]], 1, seconds=1000), clock, {1: 1.0}) == [(1, 0)]
    assert len(carried_out(Schedule([SMALL], 1, seconds=10_000), clock, {1: 1.0})) == MOST_ROUNDS


def test_a_group_that_is_measured_now_is_not_handed_to_another_device(clock: Clock) -> None:
    schedule = Schedule([SMALL], 1, seconds=100)
    first = schedule.next()
    assert isinstance(first, GroupRound)
    clock.now += 1
    schedule.finished(first, [a_record(case, 0) for case in SMALL], 1.0)
    assert schedule.next() is not None
    assert schedule.next() is None


def test_rounds_of_a_resumed_budget_go_on_where_they_were(clock: Clock) -> None:
    records = [a_record(case, number) for number in range(3) for case in SMALL]
    done = {(record.case_id, record.round) for record in records}
    schedule = Schedule([SMALL], 1, done=done, records=records, seconds=100)
    item = schedule.next()
    assert isinstance(item, GroupRound)
    assert item.round == 3
    assert Schedule([SMALL], 1, done=done, records=records, seconds=2.3).next() is None, "a round takes 4 s"

"""The table of ``vheatbench run --dry-run``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vheatbench.case import Case
    from vheatbench.run.task import Group, Inspection
    from vheatbench.suites import Suite


def print_plan(
    suite: Suite, plan: list[Case], inspection: Inspection, groups: Sequence[tuple[str, Group]] = ()
) -> None:
    """Every case in measuring order, with what it will cost and whether it fits."""
    from vheatbench.metrics import info_of
    from vheatbench.numbers import MISSING, Value, clock, value_of
    from vheatbench.present.terminal import Column, print_line, print_table, print_warnings
    from vheatbench.suites import groups_of

    forecasts = {forecast.case_id: forecast for forecast in inspection.forecasts}
    rows = []
    total, too_large = 0.0, 0
    for case in plan:
        forecast = forecasts[case.id]
        limit = inspection.memory_bytes.get(case.device)
        note = forecast.problem or ""
        if forecast.peak_bytes is not None and limit is not None and forecast.peak_bytes > limit:
            note = f"cannot fit: {limit / 2**20:.0f} MiB are available"
            too_large += 1
        if case.batch == "largest":
            note = note or "shown for one image"
        for _ in forecast.warnings:
            note += f"{', ' if note else ''}1 warning"
        seconds = min(forecast.seconds or 0.0, suite.policy.timeout_s)
        total += 0.0 if note.startswith("cannot fit") else seconds
        rows.append(
            (
                case.label,
                case.id,
                value_of(Value(forecast.macs), info_of("macs")),
                value_of(Value(forecast.peak_bytes), info_of("peak_memory_bytes")),
                f"{seconds:.0f}" if forecast.seconds is not None else MISSING,
                note,
            )
        )
    for study, group in groups:
        cases = f"{len(group.cases)} case{'s' * (len(group.cases) != 1)}"
        rows.append((f"{study}: {group.label}", group.cases[0].id, "—", "—", "—", cases))
    print_table(
        (
            Column("case", "name"),
            Column("id", "name"),
            Column("GMAC/step"),
            Column("peak MiB"),
            Column("about s"),
            Column("notes", "notes"),
        ),
        rows,
        title=f"{suite.name}: {len(plan)} cases, {suite.policy.rounds} round(s)",
    )
    budget = suite.policy.budget_s
    if budget is not None:
        taken = {case.id: min(forecasts[case.id].seconds or 0.0, suite.policy.timeout_s) for case in plan}
        groups_s = [sum(taken[case.id] for case in group) for group in groups_of(plan)]
        print_line(_bought(budget, [seconds for seconds in groups_s if seconds > 0]))
    print_line(
        f"about {clock(total * suite.policy.rounds)} in all (rough: from multiply-adds and the speed of one matrix "
        f"product; within a factor of 3), {too_large} cases cannot fit. Peak: weights, input and activations "
        "foreseen without running; kernels may take more."
    )
    print_warnings([], ((case.label, forecasts[case.id].warnings) for case in plan))


def _bought(budget_s: float, groups_s: Sequence[float]) -> str:
    """What a budget buys, of groups that take so many seconds a round."""
    from vheatbench.numbers import clock

    once = sum(groups_s)
    if once > budget_s:
        fitting = sum(1 for i in range(len(groups_s)) if sum(groups_s[: i + 1]) <= budget_s)
        return f"the budget of {clock(budget_s)} is too short: about {fitting} of {len(groups_s)} groups fit once"
    if not groups_s:
        return f"the budget of {clock(budget_s)} is for nothing that is timed"
    more = budget_s - once
    return (
        f"the budget of {clock(budget_s)} buys one round of every group, and about {more / once:.1f} more of all or "
        f"{more / max(groups_s):.0f} of the slowest"
    )

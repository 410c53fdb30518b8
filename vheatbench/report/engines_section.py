"""The page's table by engine: every model's latency in each, so that models are compared within one engine."""

from __future__ import annotations

from collections.abc import Sequence

from vheatbench.analysis.outcomes import Outcome
from vheatbench.case import ENGINE_WORDS, Case
from vheatbench.metrics import info_of
from vheatbench.numbers import MISSING, with_spread
from vheatbench.present.parts import Section, Table

CAPTION = (
    "Latency in ms. Within a column every model runs by one engine: the comparison on equal footing. Eagerly on a CPU "
    "vHeat's own code has fused products that the other models do not have."
)


def engines_section(outcomes: Sequence[Outcome], id_: str) -> Section | None:
    """The table; None where all models were measured in one engine.

    Args:
        outcomes: of a run.
        id_: of the section, unique on the page.
    """
    timed = [outcome for outcome in outcomes if outcome.case.timed and outcome.case.kind == "model"]
    engines = list(dict.fromkeys(outcome.case.engine for outcome in timed))
    if len(engines) < 2:
        return None
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for outcome in timed:
        case = outcome.case
        text = with_spread(outcome.latency, info_of("latency_s")) if outcome.status == "ok" else outcome.status
        rows.setdefault((f"{case.subject} {case.size}", _rest(case)), {})[case.engine] = text
    several = len({rest for _, rest in rows}) > 1
    header = ("model and size", *(("variant",) if several else ()), *(ENGINE_WORDS.get(one, one) for one in engines))
    cells = [
        (name, *((rest,) if several else ()), *(found.get(one, MISSING) for one in engines))
        for (name, rest), found in rows.items()
    ]
    title = "By engine"
    return Section(id_, title, tables=[Table(f"{id_}-table", title, CAPTION, header, cells)])


def _rest(case: Case) -> str:
    """The variant without the engine."""
    return case.model_copy(update={"engine": "eager"}).variant

"""``vb.compare``: did anything get slower, larger, or stop fitting?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vheatbench.api.runs import RunLike, runs_of
from vheatbench.verdict.comparison import Comparison


def compare(
    base: RunLike | Sequence[RunLike],
    head: RunLike | Sequence[RunLike],
    *,
    margin: float | Mapping[str, float] | None = None,
    metrics: Sequence[str] | None = None,
    confidence: float | None = None,
    results: str | Path = "results",
) -> Comparison:
    """The verdict on ``head`` against ``base``, case by case and as a whole, as ``vheatbench compare`` gives it.

    ``comparison.verdict`` and ``.outcome`` are words, ``.reasons`` lines; ``.cases`` has every number and interval.
    Timings can only regress where both runs were measured in turns (``vheatbench ab``): docs/compare.md.

    Args:
        base: the baseline, one run or several: see :data:`vheatbench.api.runs.RunLike`.
        head: what is compared with it.
        margin: worsening that is tolerated, 0.05 for 5 %; or of single metrics, ``{"peak_memory_bytes": 0.2}``.
        metrics: names of the only metrics to compare.
        confidence: of the intervals (0.99).
        results: folder of runs, and of the measured noise floor.

    Raises:
        UserError: no such run, or a setting that makes no sense here.
    """
    from vheatbench.verdict.compare import compare_runs
    from vheatbench.verdict.settings import settings_for

    bases, heads = runs_of(base, results), runs_of(head, results)
    margins = {"": margin} if isinstance(margin, (int, float)) else dict(margin or {})
    settings = settings_for(bases, heads, Path(results), margins=margins, metrics=metrics, confidence=confidence)
    return compare_runs(bases, heads, settings)

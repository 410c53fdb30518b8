"""What the report shows of accuracies: on the page, in Markdown and in LaTeX."""

from __future__ import annotations

import html
from typing import Any

import pytest

from support.records import record, run_of
from vheatbench.case import Case
from vheatbench.report.latex import latex_of
from vheatbench.report.markdown import markdown_of
from vheatbench.report.page import render
from vheatbench.stats import wilson
from vheatbench.store.schema import Metric, Record
from vheatbench.studies.accuracy.section import accuracy_sections

WORST = {
    "name": "cat <b>", "images": 50, "correct": 10, "accuracy": 0.2, "low": 0.112, "high": 0.330,
    "taken_for": [["dog", 31], ["fox", 9]],
}  # fmt: skip


def classified(subject: str, size: int, right: int, gain: float | None = None, **changes: Any) -> Record:
    case = Case(subject=subject, resolution=(size, size), mode="eval", analysis={"data": "d", "weights": "w"})
    value, low, high, confidence = wilson(right, 1000)
    shares = {"unit": "share", "direction": "higher", "how": "counted"}
    metrics = {
        "top1_accuracy": Metric(value=value, low=low, high=high, confidence=confidence, **shares),
        "images": Metric(value=1000, unit="images", how="counted", deterministic=True),
        "throughput_images_per_s": Metric(value=12.5, unit="images/s", how="of the model"),
    }
    if gain is not None:
        metrics["top1_gain"] = Metric(value=gain, low=gain - 0.01, high=gain + 0.01, confidence=0.95, **shares)
    conditions = {"weights": "w.pth (0123)", "data": {"name": "val"}, "worst_classes": [WORST]}
    return Record(
        case=case, case_id=case.id, status="ok", metrics=metrics, conditions=conditions,
        started="2026-01-02T03:04:05+00:00", **changes,
    )  # fmt: skip


def detected(analysis: dict[str, str] | None = None, **scores: float) -> Record:
    analysis = {"data": "4f2a", **(analysis or {})}
    case = Case(subject="maskrcnn:vheat-t", resolution=(800, 1333), mode="eval", analysis=analysis)
    metrics = {name: Metric(value=value, unit="share", direction="higher", how="x") for name, value in scores.items()}
    metrics["images"] = Metric(value=5000, unit="images", how="counted")
    return Record(
        case=case, case_id=case.id, status="ok", metrics=metrics, subject={"weights": "d.safetensors (sha256 9a)"},
        started="2026-01-02T03:04:05+00:00",
    )  # fmt: skip


def test_a_classifiers_accuracies_are_told_drawn_and_listed() -> None:
    run = run_of(
        [
            classified("vheat-t", 288, 830, gain=0.01), classified("vheat-t", 224, 820, warnings=["8 images"]),
            classified("swin-t", 224, 810),
        ],
        suite="eval",
    )  # fmt: skip
    (section,) = accuracy_sections(run, "e")
    texts = [finding.text for finding, _ in section.findings]
    assert (
        "vheat-t at 224: top-1 accuracy 82.00 % (79.50 to 84.26) on 1000 images of val, weights w.pth (0123)." in texts
    )
    assert any(text.startswith("vheat-t at 288: ") and "first size: 1.0 points (0.0 to 2.0)" in text for text in texts)
    (chart,) = section.charts
    assert [row[:2] for row in chart.rows] == [("vheat-t", "224"), ("vheat-t", "288"), ("swin-t", "224")]
    assert "vheat-t 82.00 % at 224, 83.00 % at 288; swin-t 81.00 % at 224" in chart.text
    table, *worst = section.tables
    cells = dict(zip(table.header, table.rows[0], strict=True))
    assert (cells["images"], cells["throughput (images/s)"]) == ("1000", "12.50")
    assert list(worst[0].rows) == [("cat <b>", "10 of 50", "20.0 (11.2 to 33.0)", "dog ×31, fox ×9")]
    (alert,) = section.alerts
    assert alert.endswith(": 8 images")
    page = render([run])
    assert "cat <b>" not in page
    assert "cat <b>" in html.unescape(page)
    assert "82.00 (79.50 to 84.26)" in page


def test_one_size_is_a_table_without_a_chart() -> None:
    (section,) = accuracy_sections(run_of([classified("vheat-t", 224, 820)], suite="eval"), "e")
    assert section.charts == []
    assert section.findings[0][1] == section.tables[0].id
    assert accuracy_sections(run_of([record("vheat-t", 224, 1.0)]), "e") == []


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"box_map": 0.451, "mask_map": 0.412}, "maskrcnn:vheat-t at 800x1333: box mAP 45.10 % on 5000 images of 4f2a"),
        ({"miou": 0.478, "pixel_accuracy": 0.83}, "mIoU 47.80 %"),
        ({"miou_multi_scale": 0.49}, "mIoU, several scales 49.00 %"),
    ],
)
def test_detectors_and_segmenters_are_told_by_their_score(scores: dict[str, float], said: str) -> None:
    run = run_of([detected(**scores)], suite="detect-eval")
    (section,) = accuracy_sections(run, "e")
    assert said in section.findings[0][0].text
    page, text, table = render([run]), markdown_of([run]), latex_of([run])
    for value in scores.values():
        assert f"{100 * value:.2f}" in page
        assert f"| {100 * value:.2f} |" in text
        assert f"& {100 * value:.2f}" in table


def test_a_shortened_training_is_told_by_its_steps() -> None:
    shortened = detected({"schedule": "1x", "steps": "2 of 48"}, box_map=0.1)
    whole = detected({"schedule": "160k", "test": "slide"}, miou=0.4)
    (section,) = accuracy_sections(run_of([shortened, whole], suite="detect-eval"), "e")
    assert [row[2] for row in section.tables[0].rows] == ["1x, 2 of 48 steps", "160k, slide"]
    assert "maskrcnn:vheat-t at 800x1333 (1x, 2 of 48 steps): box mAP 10.00 %" in section.findings[0][0].text


def test_a_failed_evaluation_says_why() -> None:
    case = Case(subject="vheat-t", resolution=(224, 224), mode="eval")
    failed = Record(
        case=case, case_id=case.id, status="failed", reason="no numbers", started="2026-01-02T03:04:05+00:00"
    )
    (section,) = accuracy_sections(run_of([failed], suite="eval"), "e")
    assert "failed: no numbers" in section.alerts[0]
    assert "vheat-t (failed)" in markdown_of([run_of([failed], suite="eval")])


def test_markdown_has_accuracies_and_trainings() -> None:
    text = markdown_of([run_of([classified("vheat-t", 224, 820)], suite="eval")])
    assert "accuracy" in text
    assert "82.00 (79.50 to 84.26)" in text
    assert "In brackets: the interval." in text
    case = Case(subject="vheat-t", resolution=(32, 32), mode="fit", analysis={"epochs": 3, "recipe": "r", "data": "d"})
    metrics = {"top1_accuracy": Metric(value=0.97, low=0.95, high=0.98, confidence=0.95, unit="share", how="counted")}
    trained = Record(
        case=case, case_id=case.id, status="ok", metrics=metrics, conditions={"name": "mine"},
        started="2026-01-02T03:04:05+00:00",
    )  # fmt: skip
    text = markdown_of([run_of([trained], suite="train")])
    assert "training" in text
    assert "| mine | 32 | 3 | 97.00 (95.00 to 98.00) |" in text

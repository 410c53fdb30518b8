"""The table by engine, and which engine a page compares in first."""

from __future__ import annotations

from support.records import failed, record, run_of
from vheatbench.analysis.groups import groups_of
from vheatbench.analysis.outcomes import outcomes_of
from vheatbench.report.engines_section import engines_section
from vheatbench.report.page import render
from vheatbench.store import Record


def records(*engines: str) -> list[Record]:
    return [
        record(name, 224, latency * (i + 1), case={"engine": engine})
        for i, engine in enumerate(engines)
        for name, latency in (("vheat-t", 0.1), ("swin-t", 0.2))
    ]


def test_a_row_for_each_model_and_a_column_for_each_engine() -> None:
    found = [*records("eager", "onnxruntime"), record("vit-s", 224, 0.5, case={"engine": "onnxruntime"})]
    section = engines_section(outcomes_of(found), "x")
    assert section is not None
    (table,) = section.tables
    assert table.header == ("model and size", "eager", "onnxruntime")
    assert [row[0] for row in table.rows] == ["vheat-t 224", "swin-t 224", "vit-s 224"]
    assert [row[1].split()[0] for row in table.rows] == ["100.0", "200.0", "—"]
    assert [row[2].split()[0] for row in table.rows] == ["200.0", "400.0", "500.0"]


def test_other_axes_keep_rows_apart_and_what_was_not_measured_says_so() -> None:
    other = record("vheat-t", 224, 0.3, case={"engine": "openvino", "dtype": "bfloat16"})
    lost = failed("vheat-t", 384, "skipped", "engine openvino cannot run here")
    section = engines_section(outcomes_of([*records("eager"), other, lost]), "x")
    assert section is not None
    rows = section.tables[0].rows
    assert ("vheat-t 224", "b1 bfloat16 infer") in [row[:2] for row in rows]
    assert "skipped" in {cell for row in rows for cell in row}


def test_one_engine_needs_no_table() -> None:
    assert engines_section(outcomes_of(records("openvino")), "x") is None


def test_an_engine_that_runs_all_models_by_the_same_products_comes_first() -> None:
    groups = groups_of(records("eager", "compiled", "openvino", "onnxruntime"))
    assert [group.records[0].case.engine for group in groups] == ["openvino", "onnxruntime", "eager", "compiled"]


def test_memory_says_what_is_in_it() -> None:
    sizes = [
        record(name, size, 0.1, memory=1e8, case={"engine": engine})
        for engine in ("eager", "openvino")
        for name in ("vheat-t", "swin-t")
        for size in (224, 384)
    ]
    page = render([run_of(sizes)])
    assert page.count("its weights, packed copies and arena included") == 1
    assert page.count("activations and workspaces, no weights") == 1


def test_the_page_has_the_table() -> None:
    page = render([run_of(records("eager", "openvino"))])
    assert 'id="r0-engines-table"' in page
    assert 'id="r0-engines-table"' not in render([run_of(records("eager"))])

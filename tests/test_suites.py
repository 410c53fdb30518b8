"""Suites: files to cases, errors that name file, line and key, identity and order of cases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from vheatbench.case import COMPILED, Case, kind_of
from vheatbench.errors import UserError
from vheatbench.measure.stopping import Policy
from vheatbench.subjects.catalog import find_subject
from vheatbench.subjects.operators import find_operator
from vheatbench.suite_file import list_suites, load_suite
from vheatbench.suites import Axes, Suite, SuitePolicy, groups_of, parse_resolution
from vheatbench.yaml_file import MAX_FILE_BYTES

Write = Callable[[str], Path]
SHIPPED = sorted(path.stem for path in (Path(__file__).parent.parent / "suites").glob("*.yaml"))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return to_file


def refusal(path: Path | str, overrides: dict[str, Any] | None = None, device: str = "cpu") -> str:
    """The one line that a suite is refused with, without the folder."""
    with pytest.raises(UserError) as caught:
        load_suite(str(path), device, overrides).cases(device)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message.replace(f"{Path(path).parent}/", "")


# the shipped suites


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_suites_are_valid_and_name_known_subjects(name: str, device: str) -> None:
    suite = load_suite(name, device)
    assert suite.name == name
    assert suite.description
    cases = suite.cases(device)
    assert len(cases) == suite.size > 0
    assert {case.device for case in cases} == {device}
    for entry in suite.subjects:
        find = find_operator if kind_of(entry.model) == "operator" else find_subject
        find(entry.model)
    if suite.reference is not None:
        assert set(suite.reference.models) <= {entry.model for entry in suite.subjects}


def test_every_shipped_suite_is_found_and_smoke_is_small() -> None:
    assert {"smoke", "paper-table", "resolution-scaling", "operator-scaling"} <= set(SHIPPED) <= set(list_suites())
    assert load_suite("smoke").size <= 8


def test_a_suite_of_the_working_directory_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("suites").mkdir()
    Path("suites/smoke.yaml").write_text("subjects: [mine]\n")
    assert load_suite("smoke").subjects[0].model == "mine"


# what a file may hold


def test_everything_at_once(write: Write) -> None:
    suite = load_suite(
        str(
            write("""\
                description: all of it
                subjects:
                  - vheat-t
                  - {model: swin-t, options: {window_size: 14, nested: {a: [1, null, true]}}}
                axes:
                  resolution: [224, "256", 480x640, [32, 64]]
                  batch: [1, largest]
                  dtype: [float32, bfloat16]
                  mode: [infer, forward, train]
                  memory_format: [contiguous, channels_last]
                  compile: [false, true]
                  fused_attention: [true, false]
                policy: {rounds: 2, order: listed, min_samples: 5}
            """)
        )
    )
    assert suite.name == "mine"
    assert suite.size == 2 * 4 * 2 * 2 * 3 * 2 * 2 * 2 == len(suite.cases("cpu"))
    assert suite.axes.resolution == [(224, 224), (256, 256), (480, 640), (32, 64)]
    first, second = suite.cases("cpu")[:2]
    assert (first.subject, second.subject) == ("vheat-t", "swin-t"), "subjects are innermost"
    assert second.options == {"window_size": 14, "nested": {"a": [1, None, True]}}
    assert suite.policy.model_dump(include=Policy.model_fields.keys()) == Policy(min_samples=5).model_dump()


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes("\ufeffsubjects: [a]\r\naxes: {batch: [2]}\r\n".encode())
    assert [case.batch for case in load_suite(str(path)).cases("cpu")] == [2]


def test_the_same_value_twice_is_one_case(write: Write) -> None:
    suite = load_suite(str(write("subjects: [a, a]\naxes: {resolution: [224, '224', 224x224], batch: [1, 1]}\n")))
    assert len(suite.cases("cpu")) == 1


# errors: file, line, key, what is allowed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subject: [a]", "mine.yaml:1: unknown key 'subject'; allowed: axes, ceilings, description, devices, name,"),
        ("\n\nsubjects: [a]\n7: x", "mine.yaml:4: unknown key 7; allowed: axes"),
        (
            "subjects: [a]\naxes:\n  batches: [1]",
            "mine.yaml:3: axes.batches: unknown key; did you mean 'batch'? allowed: resolution, grid,",
        ),
        ("subjects: [a]\npolicy:\n  retries: 1", "mine.yaml:3: policy.retries: unknown key; allowed: min_samples,"),
        ("subjects:\n- model: a\n  size: 1", "mine.yaml:3: subjects.0.size: unknown key; allowed: model, options, "),
        (
            "subjects: [a]\nreference:\n  source: x\n  models:\n    a: {speed: 1}",
            "mine.yaml:5: reference.models.a.speed: unknown key; allowed: params, macs, throughput, acc1,",
        ),
        (
            "subjects: [a]\nreference:\n  source: x\n  page: 1\n  models: {}",
            "mine.yaml:4: reference.page: unknown key; allowed: source, tolerance, models",
        ),
        (
            "subjects: [a]\naxes:\n  dtype:\n    - float32\n    - fp16",
            "axes.dtype.1: 'fp16' is not allowed; allowed: 'float32', 'tf32', 'bfloat16', 'float16' or 'int8'",
        ),
        ("subjects: [a]\naxes: {mode: [test]}", "mine.yaml:2: axes.mode.0: 'test' is not allowed; allowed: 'infer', "),
        ("subjects: [a]\naxes: {compile: [maybe]}", "compile.0: 'maybe' is not allowed; allowed: true, false, freez"),
        ("subjects: [a]\naxes:\n  batch: []", "mine.yaml:3: axes.batch: is empty: give at least one value"),
        ("subjects: []", "mine.yaml:1: subjects: is empty"),
        (
            "description: x\naxes: {}\ndevices:\n  cpu: {}",
            "mine.yaml:1: the suite: a suite needs subjects, studies, or both",
        ),
        ("subjects:\n- options: {}", "mine.yaml:2: subjects.0.model: is missing"),
        ("subjects: a", "mine.yaml:1: subjects: must be a list, not 'a'"),
        ("subjects: [a, 3]", "mine.yaml:1: subjects.1: must be a mapping, not 3"),
        ("subjects: ['']", "mine.yaml:1: subjects.0.model: String should have at least 1 character"),
        ("subjects: [a]\naxes:", "mine.yaml:2: axes: must be a mapping, not None"),
        ("subjects: [a]\naxes: {resolution: 224}", "mine.yaml:2: axes.resolution: must be a list, not 224"),
        ("subjects: [a]\naxes: {batch: [0]}", "a batch is a whole number of at least 1, or 'largest'"),
        ("subjects: [a]\naxes: {batch: [true]}", "a batch is a whole number of at least 1, or 'largest'"),
        ("subjects: [a]\naxes: {batch: [1.5]}", "axes.batch.0: 1.5 is not allowed; allowed: a whole number of"),
        ("subjects: [a]\naxes: {batch: [all]}", "axes.batch.0: 'all' is not allowed; allowed: a whole number of at"),
        ("subjects: [a]\npolicy:\n  rounds: 0", "mine.yaml:3: policy.rounds: Input should be greater than or equal to"),
        ("subjects: [a]\npolicy:\n  max_samples: 2", "mine.yaml:2: policy: sample counts must be at least 1, and max"),
        ("subjects: [a]\npolicy: {order: any}", "policy.order: 'any' is not allowed; allowed: 'interleaved' or"),
        ("subjects: [a]\ndevices: {tpu: {}}", "mine.yaml:2: 'devices' holds mappings named 'cpu' and 'cuda'"),
        ("subjects: [a]\ndevices: [cpu]", "mine.yaml:2: 'devices' holds mappings named 'cpu' and 'cuda'"),
        ("subjects: [a]\ndevices:\n  cpu:\n    axs: {}", "mine.yaml:4: axs: unknown key"),
        ("subjects: [a]\ndevices:\n  cpu:\n    axes:\n      batch: [0]", "mine.yaml:5: axes.batch: a batch is a whole"),
        ("subjects:\n- model: a\n  options: {day: 2026-01-01}", "mine.yaml:3: subjects.0.options: options are"),
        ("subjects:\n- model: a\n  options: {x: !!binary gIGC}", "mine.yaml:3: subjects.0.options: options are"),
        ("subjects:\n- model: a\n  options: {x: .nan}", "mine.yaml:3: subjects.0.options: options are numbers, words"),
        ("subjects: [a]\naxes: {dtype: [" + "x" * 9000 + "]}", "... (9,002 characters) is not allowed"),
    ],
)  # fmt: skip
def test_invalid_suites(write: Write, text: str, message: str) -> None:
    assert message in refusal(write(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subjects: [a]\nname: !!python/object/apply:os.system [exit]", "mine.yaml:2: a suite holds plain data only"),
        ("subjects: [a]\nname: !!python/name:os.system ''", "mine.yaml:2: a suite holds plain data only"),
        ("subjects: [a]\n? [a, b]\n: c", "mine.yaml:2: a suite holds plain data only (found unhashable key)"),
        ("subjects: [a\naxes: {}", "mine.yaml:2: not valid YAML ("),
        ("subjects:\n\t- a", "mine.yaml:2: not valid YAML (found character '\\t'"),
        ("subjects: [a]\n---\nsubjects: [b]", "mine.yaml:2: not valid YAML (but found another document)"),
        ("subjects: [a]\nname: \x00", "mine.yaml:2: not valid YAML (special characters are not allowed)"),
        ("name: !!bool perhaps", "mine.yaml: a value is not of the kind that it is written as ('perhaps')"),
        ("name: !!timestamp soon", "mine.yaml: a value is not of the kind that it is written as"),
        ("name: 2026-99-99", "mine.yaml: a value is not of the kind that it is written as (month must be in 1..12)"),
        ("name: " + "1" * 5000, "mine.yaml: a value is not of the kind that it is written as (Exceeds the limit"),
        ("", "mine.yaml: a suite is a mapping with 'subjects' and 'axes', not a NoneType"),
        ("- a", "mine.yaml: a suite is a mapping with 'subjects' and 'axes', not a list"),
        ("just words", "mine.yaml: a suite is a mapping with 'subjects' and 'axes', not a str"),
    ],
)
def test_not_the_yaml_of_a_suite(write: Write, text: str, message: str) -> None:
    assert message in refusal(write(text))


@pytest.mark.parametrize(
    ("text", "line", "key", "first"),
    [
        ("subjects: [a]\naxes: {}\nsubjects: [b]", 3, "subjects", 1),
        ("subjects: [a]\naxes:\n  batch: [1]\n  dtype: [float32]\n  batch: [2]", 5, "batch", 3),
        ("subjects:\n- model: a\n  options: {x: 1, 'x': 2}", 3, "x", 3),
        ("subjects: [a]\ndevices:\n  cpu: {}\n  cuda: {}\n  cpu: {}", 5, "cpu", 3),
    ],
)
def test_a_key_that_stands_twice_is_refused(write: Write, text: str, line: int, key: str, first: int) -> None:
    assert refusal(write(text)) == f"mine.yaml:{line}: {key!r} stands twice, first in line {first}: keep one"


# files that are meant to hurt


def test_aliases_are_refused_before_they_are_expanded(write: Write) -> None:
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 9) + "]" for i in range(1, 30)]
    assert refusal(write("\n".join(bomb))) == "mine.yaml:2: YAML aliases are not allowed, write it out"
    assert "YAML aliases are not allowed" in refusal(write("a: &a {b: 1}\nc: {<<: *a}"))


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_endless_nesting_is_refused_early(write: Write, opening: str) -> None:
    """Reading a hundred thousand brackets takes PyYAML two minutes."""
    text = opening * ((MAX_FILE_BYTES - 100) // len(opening))
    assert refusal(write(text)) == "mine.yaml:1: nested more than 20 levels deep"


def test_a_thousand_million_cases_are_counted_and_not_made(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = list(range(1, 1001))
    path = write(f"subjects: {[f'm{n}' for n in numbers]}\naxes: {{resolution: {numbers}, batch: {numbers}}}\n")
    suite = load_suite(str(path))
    assert suite.size == 10**9
    monkeypatch.setattr("vheatbench.suites.Case", None)  # whoever makes one fails
    for method in (suite.cases, suite.plan):
        with pytest.raises(UserError, match="suite 'mine' has 1,000,000,000 cases, the limit is 10,000: take values"):
            method("cpu")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert refusal(path) == "mine.yaml: cannot be read (is larger than 100,000 bytes)"


def test_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes("subjects: [caf\xe9]".encode("latin-1"))
    assert refusal(path).startswith("mine.yaml: cannot be read ('utf-8' codec can't decode byte 0xe9")


def test_not_a_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder.yaml"
    folder.mkdir()
    assert "folder.yaml' cannot be read (is a folder, not a file)" in refusal(f"{folder}")
    with pytest.raises(UserError, match=r"^suite file 'no/such.yaml' does not exist; there are .*smoke"):
        load_suite("no/such.yaml")
    assert "cannot be read (File name too long)" in refusal("a" * 5000 + ".yaml")
    assert "cannot be read (embedded null" in refusal("a\0.yaml")


def test_an_unknown_suite_suggests() -> None:
    assert refusal("smoek").startswith("unknown suite 'smoek': did you mean 'smoke'? there are ")
    assert refusal("zzz").startswith("unknown suite 'zzz': there are ")


# overrides


def test_overrides_replace_axes_policy_and_subjects(write: Write) -> None:
    path = write("subjects: [a]\naxes: {batch: [1], dtype: [float32]}\npolicy: {rounds: 3, seed: 5}\n")
    suite = load_suite(str(path), "cpu", {"batch": [7, 8], "rounds": 1, "subjects": ["b"], "timeout_s": 9})
    assert suite.axes.batch == [7, 8]
    assert suite.axes.dtype == ["float32"]
    assert (suite.policy.rounds, suite.policy.seed, suite.policy.timeout_s) == (1, 5, 9)
    assert [entry.model for entry in suite.subjects] == ["b"]


def test_overrides_beat_the_section_of_the_device(write: Write) -> None:
    path = write("subjects: [a]\ndevices: {cpu: {axes: {batch: [2], mode: [train]}}}\n")
    axes = load_suite(str(path), "cpu", {"batch": [3]}).axes
    assert (axes.batch, axes.mode) == ([3], ["train"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"dtype": ["fp16"]}, "--dtype: 'fp16' is not allowed; allowed: 'float32', 'tf32', 'bfloat16', 'float16' or "),
        ({"resolution": ["224x"]}, "--resolution: '224x' is no resolution: give 224, '480x640' or [480, 640]"),
        ({"batch": [0]}, "--batch: a batch is a whole number of at least 1, or 'largest'"),
        ({"batch": ["big"]}, "--batch: 'big' is not allowed; allowed: a whole number of at least 1, or 'largest'"),
        ({"memory_format": ["nhwc"]}, "--memory-format: 'nhwc' is not allowed; allowed: 'contiguous' or "),
        ({"fused_attention": []}, "--fused-attention: is empty: give at least one value"),
        ({"subjects": []}, "--model: is empty: give at least one value"),
        ({"rounds": 0}, "--rounds: Input should be greater than or equal to 1, not 0"),
        ({"timeout_s": 0}, "--timeout: Input should be greater than 0, not 0"),
        ({"memory_limit_gib": -1}, "--memory-limit: Input should be greater than 0, not -1"),
        ({"min_samples": 2000}, "--min-samples: sample counts must be at least 1, and max_samples at least min_"),
    ],
)
def test_errors_of_overrides_name_the_option(write: Write, overrides: dict[str, Any], message: str) -> None:
    assert refusal(write("subjects: [a]\naxes: {batch: [1]}\n"), overrides).startswith(message)


@pytest.mark.parametrize("axes", ["", "[1]", "words"])
def test_an_override_does_not_hide_a_broken_section(write: Write, axes: str) -> None:
    assert "mine.yaml:2: axes: must be a mapping" in refusal(write(f"subjects: [a]\naxes: {axes}\n"), {"batch": [1]})


def test_an_error_of_the_file_is_not_blamed_on_an_override(write: Write) -> None:
    path = write("subjects: [a]\naxes: {dtype: [fp16]}\n")
    assert refusal(path, {"batch": [1]}).startswith("mine.yaml:2: axes.dtype.0: 'fp16'")


# devices


def test_the_section_of_the_device_is_merged_in(write: Write) -> None:
    path = write("""\
        subjects: [a]
        axes: {batch: [1], mode: [infer]}
        policy: {rounds: 4}
        devices:
          cpu:
            axes: {batch: [2]}
          cuda:
            subjects: [b, c]
            axes: {dtype: [bfloat16]}
            policy: {seed: 1}
            description: for cards
    """)
    cpu, cuda = load_suite(str(path), "cpu"), load_suite(str(path), "cuda")
    assert (cpu.axes.batch, cpu.axes.mode, cpu.policy.rounds) == ([2], ["infer"], 4)
    assert [entry.model for entry in cpu.subjects] == ["a"]
    assert (cuda.axes.batch, cuda.axes.dtype, cuda.axes.mode) == ([1], ["bfloat16"], ["infer"])
    assert (cuda.policy.rounds, cuda.policy.seed, cuda.description) == (4, 1, "for cards")
    assert [entry.model for entry in cuda.subjects] == ["b", "c"], "lists are replaced, not joined"


def test_the_other_devices_section_is_not_validated_away(write: Write) -> None:
    path = write("subjects: [a]\ndevices:\n  cuda:\n    axes: {dtype: [fp8]}\n")
    assert load_suite(str(path), "cpu").size == 1
    assert refusal(path, device="cuda").startswith("mine.yaml:4: axes.dtype.0: 'fp8' is not allowed")


# operators and ceilings

OPERATORS = """\
    subjects:
      - op/heat
      - {model: op/attention, only: {grid: [14], part: [core]}}
    axes: {grid: [14, 28x56], channels: [96, 192], part: [core, layer]}
"""


def test_a_suite_of_operators(write: Write) -> None:
    suite = load_suite(str(write(OPERATORS)))
    cases = suite.cases("cpu")
    assert len(cases) == suite.size == 2 * 2 * 2 + 2
    heat = [case for case in cases if case.subject == "op/heat"]
    assert {(c.size, c.channels, c.part) for c in heat} == {
        (size, channels, part) for size in ("14", "28x56") for channels in (96, 192) for part in ("core", "layer")
    }
    assert [(c.size, c.channels, c.part) for c in cases if c.subject == "op/attention"] == [
        ("14", 96, "core"), ("14", 192, "core"),
    ]  # fmt: skip
    assert Suite.model_validate_json(suite.model_dump_json()) == suite
    assert sorted(case.id for case in suite.plan("cpu")) == sorted(case.id for case in cases)


def test_a_restriction_to_sizes_of_models_and_to_nothing(write: Write) -> None:
    restricted = "{model: a, only: {resolution: ['224'], batch: [2, 9]}}"
    text = f"subjects: [{restricted}, b]\naxes: {{resolution: [224, 256], batch: [1, 2]}}"
    cases = load_suite(str(write(text))).cases("cpu")
    assert [(c.size, c.batch) for c in cases if c.subject == "a"] == [("224", 2)]
    assert len(cases) == 5
    path = write("subjects: [{model: a, only: {batch: [3]}}]\naxes: {batch: [1]}")
    assert refusal(path) == "suite 'mine' has no cases: every subject is restricted ('only') to other values"


def test_ceilings_come_first_once_for_every_dtype(write: Write) -> None:
    text = "ceilings: true\nsubjects: [op/heat]\naxes: {grid: [4, 8], dtype: [float32, bfloat16]}"
    suite = load_suite(str(write(text)))
    plan = suite.plan("cpu")
    assert len(plan) == suite.size == 8
    assert [(c.subject, c.dtype) for c in plan[:4]] == [
        (name, dtype) for dtype in ("float32", "bfloat16") for name in ("ceiling/copy", "ceiling/matmul")
    ]
    assert all(c.kind == "operator" for c in plan[4:])
    assert [len(group) for group in groups_of(plan)] == [1] * 8, "what is compared with nothing shares no point"
    assert load_suite(str(write("subjects: [a]")), overrides={"ceilings": True}).size == 3
    assert {c.device for c in suite.cases("cuda")} == {"cuda"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subjects: [a, op/heat]\naxes: {resolution: [224]}", "operators are measured on grids of tokens: give grid ("),
        ("subjects: [op/heat]\naxes: {resolution: [224]}", "operators are measured on grids of tokens: give grid ("),
        ("subjects: [op/heat]", "operators are measured on grids of tokens: give grid (--grid 14,28), not resolution"),
        ("subjects: [a]\naxes: {grid: [14]}", "grid, channels and part belong to operators (op/heat, ...): leave them"),
        ("subjects: [a]\naxes: {channels: [96]}", "grid, channels and part belong to operators"),
        ("subjects: [a]\naxes: {part: [core]}", "grid, channels and part belong to operators"),
        ("subjects: [a]\naxes: {grid: [14], resolution: [14]}", "grid, channels and part belong to operators"),
        ("subjects: [op/heat]\naxes: {grid: [14], resolution: [14]}", "give grid (--grid 14,28), not resolution"),
        ("subjects: [a, data/photographs]", "data/photographs is no subject: a study looks at it"),
        ("subjects: [op/heat, ceiling/copy]\naxes: {grid: [14]}", "ceiling/copy is no subject: write 'ceilings: true'"),
        ("subjects: [op/heat]\naxes:\n  grid: [x]", "mine.yaml:3: axes.grid: 'x' is no resolution"),
        ("subjects: [op/heat]\naxes: {grid: [14], channels: [0]}", "axes.channels: channels are whole numbers of at"),
        ("subjects: [op/heat]\naxes: {grid: [14], channels: [true]}", "axes.channels: channels are whole numbers of"),
        ("subjects: [op/heat]\naxes: {grid: [14], channels: [x]}", "axes.channels.0: 'x' is not allowed; allowed: a"),
        ("subjects: [op/heat]\naxes: {grid: [14], part: [all]}", "axes.part.0: 'all' is not allowed; allowed: 'core'"),
        ("subjects: [a]\nceilings: perhaps", "mine.yaml:2: ceilings: 'perhaps' is not allowed; allowed: true, false"),
        ("subjects:\n- {model: a, only: {size: [1]}}", "mine.yaml:2: subjects.0.only: 'size' is no axis; allowed: "),
        ("subjects:\n- {model: a, only: {batch: [0]}}", "subjects.0.only: batch: a batch is a whole number of at"),
        ("subjects:\n- {model: a, only: {batch: 1}}", "subjects.0.only.batch: must be a list, not 1"),
    ],
)  # fmt: skip
def test_invalid_suites_of_operators(write: Write, text: str, message: str) -> None:
    assert message in refusal(write(text))


def test_a_size_from_the_command_line_replaces_either_of_the_files(write: Write) -> None:
    models = write("subjects: [a]\naxes: {mode: [forward]}\ndevices: {cpu: {axes: {resolution: [224]}}}")
    suite = load_suite(str(models), "cpu", {"subjects": ["op/heat"], "grid": ["14", "7x9"]})
    assert [(c.subject, c.resolution, c.mode) for c in suite.cases("cpu")] == [
        ("op/heat", (14, 14), "forward"), ("op/heat", (7, 9), "forward"),
    ]  # fmt: skip
    operators = write("subjects: [op/heat]\naxes: {grid: [14]}")
    suite = load_suite(str(operators), "cpu", {"subjects": ["a"], "resolution": [224]})
    assert [c.size for c in suite.cases("cpu")] == ["224"]
    assert "--grid: 'x' is no resolution" in refusal(operators, {"grid": ["x"]})
    assert "give grid (--grid 14,28), not resolution" in refusal(operators, {"grid": [14], "resolution": [224]})


def test_models_and_operators_in_one_suite_have_a_size_each(write: Write) -> None:
    both = write("subjects: [op/heat, a, b]\naxes: {resolution: [224, 320], grid: [14], channels: [32], batch: [1, 2]}")
    suite = load_suite(str(both))
    cases = suite.cases("cpu")
    assert len(cases) == suite.size == 2 * (2 * 2 + 1)
    assert [case.kind for case in cases] == ["model"] * 8 + ["operator"] * 2
    assert {(case.size, case.channels, case.part) for case in cases} == {
        ("224", None, None), ("320", None, None), ("14", 32, "core"),
    }  # fmt: skip
    assert [len(group) for group in groups_of(suite.plan("cpu"))] == [2, 2, 2, 2, 1, 1]

    def sizes(overrides: dict[str, Any]) -> list[tuple[str, str]]:
        return [(c.subject, c.size) for c in load_suite(str(both), "cpu", {"batch": [1], **overrides}).cases("cpu")]

    assert sizes({"resolution": [64]}) == [("a", "64"), ("b", "64"), ("op/heat", "14")]
    assert sizes({"grid": [7], "resolution": [64]}) == [("a", "64"), ("b", "64"), ("op/heat", "7")]
    assert sizes({"subjects": ["c"]}) == [("c", "224"), ("c", "320")]
    assert sizes({"subjects": ["op/attention"]}) == [("op/attention", "14")]
    assert sizes({"subjects": ["c", "op/attention"], "resolution": [64]}) == [("c", "64"), ("op/attention", "14")]
    assert "leave them out for models" in refusal(both, {"subjects": ["c"], "grid": [7]})


# resolutions


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (224, (224, 224)),
        ("224", (224, 224)),
        ("480x640", (480, 640)),
        ("480X640", (480, 640)),
        (" 480 x 640 ", (480, 640)),
        ([480, 640], (480, 640)),
        ((480, 640), (480, 640)),
        (65536, (65536, 65536)),
    ],
)
def test_resolutions(value: Any, size: tuple[int, int]) -> None:
    assert parse_resolution(value) == size


@pytest.mark.parametrize(
    "value",
    [0, -1, 65537, "0", "x", "224x", "x224", "1x2x3", "1e3", "224.0", 224.0, True, [True, 1], [224], [1, 2, 3],
     None, {}, "-5", "999999", ["224", "224"], "224×224"],
)  # fmt: skip
def test_no_resolutions(value: Any) -> None:
    with pytest.raises(ValueError, match="is no resolution: give 224, '480x640' or"):
        parse_resolution(value)


# the identity of a case

KNOWN = {
    "17fc70cff1f9": Case(subject="a", resolution=(224, 224)),
    "99964f1c3b11": Case(subject="vheat-t", resolution=(512, 512), batch=16, dtype="bfloat16", device="cuda"),
    "9fb70a552db6": Case(
        subject="swin-t",
        resolution=(480, 640),
        batch="largest",
        mode="train",
        memory_format="channels_last",
        compile=True,
        fused_attention=False,
        options={"window_size": 14, "name": "é", "deep": {"b": [1, None], "a": 0.5}},
    ),
}


def test_known_ids() -> None:
    """Runs of years ago are continued and compared by these: a change here needs a new schema version."""
    assert {case.id: case for case in KNOWN.values()} == KNOWN


OLD_COMPILE = {
    "834c0661f9ef": True,
    "9f2ca362a06e": "freezing",
    "c3ab7c1baa2b": "cudagraphs",
}
"""Ids of a case of a at 224 from before there were engines, by their value of ``compile``."""


def test_compile_is_an_older_name_of_engines_with_the_same_ids() -> None:
    for id_, value in OLD_COMPILE.items():
        assert Case(subject="a", resolution=224, compile=value).id == id_
        assert Case(subject="a", resolution=224, engine=COMPILED[value]).id == id_
    plain = Case(subject="a", resolution=224)
    assert Case(subject="a", resolution=224, compile=False) == plain
    assert Case(subject="a", resolution=224, engine="onnxruntime").id not in {plain.id, *OLD_COMPILE}
    old = {**plain.model_dump(mode="json"), "compile": True}
    assert Case.model_validate_json(json.dumps({k: v for k, v in old.items() if k != "engine"})).engine == "compiled"
    with pytest.raises(ValidationError, match="compile means engine compiled, but engine openvino was given too"):
        Case(subject="a", resolution=224, compile=True, engine="openvino")


def test_suites_with_compile_read_as_engines(write: Write) -> None:
    old = load_suite(
        str(
            write("""\
                subjects:
                  - {model: a, only: {compile: [freezing]}}
                  - {model: b, only: {compile: [false, true]}}
                axes: {compile: [false, true, freezing]}
            """)
        )
    )
    engines = {(case.subject, case.engine) for case in old.cases("cpu")}
    assert engines == {("a", "compiled-freezing"), ("b", "eager"), ("b", "compiled")}
    assert Suite.model_validate_json(old.model_dump_json()) == old
    path = write("subjects: [a]\naxes: {compile: [true], engine: [eager]}")
    assert "compile is the older name of some engines: give engine alone" in refusal(path)


def test_the_command_lines_engine_stands_for_the_files_compile(write: Write) -> None:
    path = write("subjects: [a]\naxes: {compile: [true]}")
    assert [case.engine for case in load_suite(str(path)).cases("cpu")] == ["compiled"]
    assert [case.engine for case in load_suite(str(path), "cpu", {"engine": ["openvino"]}).cases("cpu")] == ["openvino"]
    path = write("subjects: [a]\naxes: {engine: [openvino]}")
    assert [case.engine for case in load_suite(str(path), "cpu", {"compile": [False]}).cases("cpu")] == ["eager"]


def test_ids_do_not_depend_on_the_process() -> None:
    code = "import sys; from vheatbench.case import Case; [print(Case.model_validate_json(a).id) for a in sys.argv[1:]]"
    arguments = [case.model_dump_json() for case in KNOWN.values()]
    for seed in ("1", "2"):
        out = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout.split() == list(KNOWN)


def test_default_values_leave_the_id_alone() -> None:
    plain = Case(subject="a", resolution=(224, 224))
    spelled = Case(subject="a", resolution=(224, 224), batch=1, dtype="float32", mode="infer", device="cpu", options={})
    assert plain.id == spelled.id
    assert plain == Case(subject="a", resolution=224)


def test_the_order_of_options_leaves_the_id_alone() -> None:
    one = Case(subject="a", resolution=1, options={"x": 1, "y": {"p": 1, "q": 2}})
    two = Case(subject="a", resolution=1, options={"y": {"q": 2, "p": 1}, "x": 1})
    assert one.id == two.id


def test_every_field_makes_another_id() -> None:
    base = Case(subject="a", resolution=(224, 224))
    changes: dict[str, Any] = {
        "subject": "b",
        "resolution": (224, 225),
        "batch": "largest",
        "dtype": "tf32",
        "mode": "train",
        "device": "cuda",
        "memory_format": "channels_last",
        "engine": "compiled",
        "dynamic": True,
        "fused_attention": False,
        "channels": 96,
        "part": "core",
        "options": {"x": 1},
        "analysis": {"layer": "stages.3"},
    }
    assert set(changes) == set(Case.model_fields)
    ids = [base.id, *(base.model_copy(update={key: value}).id for key, value in changes.items())]
    ids += [Case(subject="a", resolution=(225, 224)).id, Case(subject="a", resolution=1, options={"x": "1"}).id]
    assert len(set(ids)) == len(ids)


def test_labels_and_variants() -> None:
    plain, rich = KNOWN["17fc70cff1f9"], list(KNOWN.values())[2]
    assert plain.label == "a 224 b1 float32 infer"
    assert plain.variant == "b1 float32 infer"
    assert plain.size == "224"
    assert rich.size == "480x640"
    assert rich.pixels == 480 * 640
    assert rich.label.startswith("swin-t 480x640 blargest float32 train channels_last compiled unfused attention deep=")
    assert rich.label == f"swin-t 480x640 {rich.variant}"
    photographs = Case(subject="data/photographs", resolution=224, mode="eval", analysis={"images": 10})
    assert photographs.kind == "data"
    assert photographs.label == "data/photographs 224 eval images=10", "neither a batch nor a dtype: there is no model"


# order


def test_listed_order_is_the_files() -> None:
    suite = Suite.model_validate(
        {"name": "s", "subjects": ["a", "b"], "axes": {"resolution": [1, 2]}, "policy": {"order": "listed"}}
    )
    assert [(c.resolution[0], c.subject) for c in suite.plan("cpu")] == [(1, "a"), (1, "b"), (2, "a"), (2, "b")]


def interleaved(seed: int) -> list[Case]:
    subjects: list[Any] = ["a", "b", {"model": "c", "options": {"x": 1}}, {"model": "c", "options": {"x": 2}}]
    axes = {"resolution": [32, 64, 96, 128], "batch": [1, 2], "mode": ["infer", "train"]}
    return Suite.model_validate({"name": "s", "subjects": subjects, "axes": axes, "policy": {"seed": seed}}).plan("cpu")


def test_interleaving_shuffles_the_subjects_of_each_point() -> None:
    plan = interleaved(0)
    assert len(plan) == 64
    points = [plan[i : i + 4] for i in range(0, 64, 4)]
    for point in points:
        assert len({(c.resolution, c.batch, c.mode) for c in point}) == 1, "a point is not torn apart"
        assert Counter(c.subject for c in point) == {"a": 1, "b": 1, "c": 2}
    first = Counter((point[0].subject, str(point[0].options)) for point in points)
    assert len(first) == 4, "everyone goes first somewhere, the subjects with options too"
    assert max(first.values()) <= 9


def test_interleaving_is_the_same_for_the_same_seed() -> None:
    assert interleaved(3) == interleaved(3)
    assert interleaved(3) != interleaved(4)
    assert sorted(c.id for c in interleaved(3)) == sorted(c.id for c in interleaved(4))


# any suite

axis = {
    "resolution": st.tuples(st.integers(1, 4096), st.integers(1, 4096)).map(list) | st.integers(1, 4096),
    "batch": st.integers(1, 512) | st.just("largest"),
    "dtype": st.sampled_from(["float32", "tf32", "bfloat16", "float16"]),
    "mode": st.sampled_from(["infer", "forward", "forward_backward", "train"]),
    "memory_format": st.sampled_from(["contiguous", "channels_last"]),
    "engine": st.sampled_from(["eager", "compiled", "compiled-freezing", "onnxruntime", "openvino"]),
    "dynamic": st.booleans(),
    "fused_attention": st.booleans(),
}
plain = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | st.text(max_size=5)
options = st.dictionaries(st.text(max_size=5), plain | st.lists(plain, max_size=2), max_size=2)
subject = st.text(min_size=1, max_size=8)
suites = st.fixed_dictionaries(
    {
        "name": st.just("s"),
        "subjects": st.lists(
            subject | st.fixed_dictionaries({"model": subject, "options": options}), min_size=1, max_size=3
        ),
        "axes": st.fixed_dictionaries(
            {}, optional={name: st.lists(values, min_size=1, max_size=2) for name, values in axis.items()}
        ),
    }
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(suites)
def test_any_suite_gives_unique_cases_that_survive_json(content: dict[str, Any]) -> None:
    suite = Suite.model_validate(content)
    cases = suite.cases("cpu")
    assert len({case.id for case in cases}) == len(cases) <= suite.size
    assert all(Case.model_validate_json(case.model_dump_json()) == case for case in cases[:20])
    assert [Case.model_validate_json(case.model_dump_json()).id for case in cases[:20]] == [c.id for c in cases[:20]]
    assert sorted(case.id for case in suite.plan("cpu")) == sorted(case.id for case in cases)
    assert Suite.model_validate_json(suite.model_dump_json()) == suite


def test_the_axes_are_fields_of_a_case_and_the_policy_that_of_the_stopping_rule() -> None:
    of_models, of_operators = (Axes().values(kind) for kind in ("model", "operator"))
    assert set(of_models) == set(of_operators)
    assert set(of_models) | {"subject", "options", "device", "analysis"} == set(Case.model_fields)
    assert set(Axes.model_fields) == {*of_models, "grid", "compile"}
    assert set(Policy.model_fields) <= set(SuitePolicy.model_fields)
    assert {name: getattr(SuitePolicy(), name) for name in Policy.model_fields} == Policy().model_dump()

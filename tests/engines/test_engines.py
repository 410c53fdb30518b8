"""Engines outside torch: what they compute, with which threads, and what they say where they cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from support.engine_models import Tiny
from support.runner import run_all
from vheatbench import engines
from vheatbench.case import EXPORTED, Case
from vheatbench.engines import agreement, check_engine, export, openvino
from vheatbench.engines import onnxruntime as ort
from vheatbench.engines.agreement import AgreementError, disagreement
from vheatbench.engines.int8 import quantize
from vheatbench.engines.photographs import batches, pictures
from vheatbench.engines.session import Setting
from vheatbench.errors import UserError
from vheatbench.run.exports import exports_folder, remove_exports
from vheatbench.run.measure_case import measure_case
from vheatbench.run.task import MeasureTask
from vheatbench.store.schema import Record
from vheatbench.subjects.vheat import VHeat
from vheatbench.suites import SuitePolicy

QUICK = SuitePolicy(min_samples=3, slow_min_samples=3, max_samples=5, ceiling_s=0.05, warmup_ceiling_s=0.05)
HERE = ("onnxruntime", "openvino")
MIB = 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Exported once for all tests."""
    return tmp_path_factory.mktemp("exports")


def measured(folder: Path | None, subject: str = "tiny", **axes: Any) -> Record:
    name = subject if subject.startswith(("op/", "test_")) else f"support.engine_models:{subject}"
    case = Case(subject=name, **{"resolution": 16, **axes})
    return measure_case(MeasureTask(case=case, policy=QUICK, count=False, folder=folder))


@pytest.mark.parametrize("engine", HERE)
@pytest.mark.parametrize("subject", ["tiny", "two", "op/heat"])
def test_it_computes_what_the_model_does_with_its_threads(engine: str, subject: str, folder: Path) -> None:
    record = measured(folder, subject, engine=engine, batch=2)
    assert record.status == "ok", record.reason
    metrics, facts = record.metrics, record.subject["engine"]
    assert 0 <= metrics["engine_error"].value <= 1e-5  # type: ignore[operator]
    assert metrics["latency_s"].value > 0  # type: ignore[operator]
    assert metrics["exported_nodes"].deterministic
    assert (facts["name"], facts["threads"]) == (engine, torch.get_num_threads())
    assert facts["affinity"] == "left to the system"
    assert metrics["peak_allocated_bytes"].unavailable is not None


@pytest.mark.parametrize("engine", HERE)
@pytest.mark.parametrize("subject", ["heavy", "packed"])
def test_memory_is_that_of_the_whole_session_whoever_exported(engine: str, subject: str, folder: Path) -> None:
    for _ in range(2):
        metrics = measured(folder, subject, engine=engine).metrics
        peak, weights = metrics["peak_memory_bytes"], metrics["weights_bytes"].value
        assert peak.value is not None, peak.unavailable
        assert weights is not None
        assert 64 * MIB < weights < 66 * MIB, "without a copy of the eager model's own"
        assert weights < peak.value < 200 * MIB
        assert "its weights included" in peak.how


def test_rounds_and_engines_share_one_export(tmp_path: Path) -> None:
    records = [measured(tmp_path, engine=engine) for engine in (*HERE, HERE[0])]
    assert len({record.metrics["export_s"].value for record in records}) == 1
    assert len(list(tmp_path.glob("*.onnx"))) == 1
    record = measured(None, engine=HERE[0])
    assert record.metrics["export_s"].value != records[0].metrics["export_s"].value, "without a folder nothing is kept"


@pytest.mark.parametrize("engine", HERE)
def test_an_engine_that_computes_something_else_is_a_failed_case_with_the_number(engine: str, folder: Path) -> None:
    record = measured(folder, "noisy", engine=engine)
    assert record.status == "failed"
    error = record.metrics["engine_error"].value
    assert error is not None
    assert error > 0.1
    assert f"{error:.3g} away" in record.reason  # type: ignore[operator]
    assert "latency_s" not in record.metrics


def test_what_does_not_export_says_the_exporters_reason_in_one_line(folder: Path) -> None:
    record = measured(folder, "undecided", engine="onnxruntime")
    assert record.status == "failed"
    assert record.reason is not None
    assert record.reason.startswith("ExportError: ")
    assert "\n" not in record.reason
    assert "data-dependent" in record.reason


def test_openvino_is_told_the_precision_and_it_is_the_one_used(folder: Path) -> None:
    record = measured(folder, engine="openvino", dtype="bfloat16")
    used = record.subject.get("engine", {}).get("precision")
    if record.status == "skipped":  # a processor without it
        assert "does not compute in bfloat16" in str(record.reason)
    else:
        assert used == "bf16"
        assert record.metrics["engine_error"].value > 1e-5  # type: ignore[operator]
    assert measured(folder, engine="openvino").subject["engine"]["precision"] == "f32"


def test_threads_that_wait_do_not_spin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    session = onnxruntime.InferenceSession

    def watched(path: str, options: Any, **more: Any) -> Any:
        seen.append(options)
        return session(path, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    model = Tiny().eval()
    x = torch.randn(1, 3, 16, 16)
    setting = Setting(Case(subject="a", resolution=16, engine="onnxruntime"), 3, (model(x).detach(),), folder)
    ort.build(model.requires_grad_(False), (x,), setting)
    (options,) = seen
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_provider_that_onnx_runtime_leaves_out_is_an_error(folder: Path) -> None:
    """On a machine without CUDA it warns, and takes the CPU."""
    provider = "CUDAExecutionProvider"
    if provider in onnxruntime.get_available_providers():
        pytest.skip("CUDA's provider is here")
    model = Tiny().eval().requires_grad_(False)
    x = torch.randn(1, 3, 16, 16)
    setting = Setting(Case(subject="a", resolution=16, engine="onnxruntime"), 1, (model(x),), folder)
    with pytest.raises(ort.NoProviderError, match=f"took CPUExecutionProvider instead of {provider}"):
        ort.build_on([provider], {}, model, (x,), setting)
    assert f"has no {provider} here" in str(ort.provider_missing(provider))


def test_an_engine_that_is_not_there_is_a_skipped_case_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "TensorRT is for NVIDIA GPUs" in str(measured(None, engine="tensorrt").reason)
    monkeypatch.setattr(openvino.util, "find_spec", lambda name: None)
    for engine, package in (("openvino", "openvino"), ("onnxruntime", "onnxruntime")):
        record = measured(None, engine=engine)
        assert record.status == "skipped"
        assert f"engine {engine} cannot run here: {package} is not installed (pip install" in str(record.reason)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"mode": "train"}, "is for inference: not in mode train"),
        ({"batch": "largest"}, "give a number, not largest"),
        ({"memory_format": "channels_last"}, "chooses its own layout"),
        ({"dtype": "int8", "subject": "op/heat"}, "of models, not of operators"),
        ({"dtype": "int8", "engine": "eager"}, "int8 is quantised by an engine that takes ONNX"),
        ({"dynamic": True, "engine": "eager"}, "engine eager takes any size"),
    ],
)
def test_what_no_machine_can_do_is_refused(axes: dict[str, Any], message: str) -> None:
    case = Case(**{"subject": "a", "resolution": 16, "engine": "onnxruntime", **axes})
    with pytest.raises(UserError, match=message):
        check_engine(case)


def test_every_engine_is_a_file_with_three_functions() -> None:
    for engine in engines.MODULES:
        module = engines.engine_of(Case(subject="a", resolution=16, engine=engine))
        assert all(callable(getattr(module, name)) for name in ("check", "missing", "build"))
    assert set(EXPORTED) == {"onnxruntime", "openvino", "tensorrt"}


# the exported file


def test_its_key_is_weights_code_and_shapes() -> None:
    case, x = Case(subject="a", resolution=16, engine="onnxruntime"), torch.zeros(1, 3, 16, 16)
    torch.manual_seed(0)
    model = Tiny()
    key = export.content_key(model, (x,), case)
    torch.manual_seed(0)
    assert export.content_key(Tiny(), (x,), case) == key
    assert export.content_key(model, (x,), case.model_copy(update={"engine": "openvino"})) == key
    others = [
        export.content_key(model, (torch.zeros(2, 3, 16, 16),), case),
        export.content_key(model, (x,), case.model_copy(update={"options": {"a": 1}})),
        export.content_key(model, (x,), case.model_copy(update={"dynamic": True})),
    ]
    with torch.no_grad():
        model.head.bias[0] += 1
    others.append(export.content_key(model, (x,), case))
    assert len({key, *others}) == len(others) + 1


@pytest.mark.parametrize("subject", ["tiny", pytest.param("vheat", marks=pytest.mark.slow)])
def test_open_sizes_take_other_sizes(subject: str, tmp_path: Path) -> None:
    """Of vHeat's training form too, which makes its cosines and decays from the size."""
    torch.manual_seed(0)
    model = Tiny() if subject == "tiny" else VHeat(img_size=64, dim=8, depths=(1,), num_classes=5)
    model.eval().requires_grad_(False)
    sides = {0: "batch", 2: "height", 3: "width"}
    found = export.export_to(tmp_path / "open.onnx", model, (torch.randn(1, 3, 64, 96),), sides)
    assert found.open == ("batch", "height", "width")
    session = onnxruntime.InferenceSession(str(found.path))
    for shape in ((3, 3, 64, 64), (1, 3, 96, 160)):
        x = torch.randn(shape)
        (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert disagreement(torch.from_numpy(output), (model(x),)) < 1e-4


def test_nothing_of_this_machine_stands_in_it(tmp_path: Path) -> None:
    found = export.export_to(tmp_path / "m.onnx", Tiny().eval(), (torch.zeros(1, 3, 16, 16),))
    assert str(Path(__file__).parents[1]).encode() not in found.path.read_bytes()
    assert found.bytes == found.path.stat().st_size
    assert found.nodes == len(onnx.load(found.path).graph.node)


def test_the_folder_goes_when_the_run_is_finished(tmp_path: Path) -> None:
    run = tmp_path / "a.jsonl.partial"
    folder = exports_folder(run)
    folder.mkdir()
    (folder / "x.onnx").write_bytes(b"x")
    assert exports_folder(tmp_path / "a.jsonl") == folder
    remove_exports(run)
    assert not folder.exists()
    remove_exports(run)


# agreement


def test_disagreement_is_relative_to_the_largest_value_of_each_output() -> None:
    expected = (torch.tensor([1.0, -4.0]), torch.tensor([0.01]))
    assert disagreement((torch.tensor([1.0, -4.4]), torch.tensor([0.01])), expected) == pytest.approx(0.1, rel=1e-5)
    assert disagreement({"a": torch.tensor([1.0, -4.0]), "b": torch.tensor([0.02])}, expected) == pytest.approx(1.0)
    with pytest.raises(AgreementError, match="shapes"):
        disagreement((torch.zeros(3),), expected)
    assert agreement.TOLERANCE["float32"] == 1e-4


# int8


def test_int8_is_for_layers_and_leaves_the_transforms_of_heat_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VHeat(img_size=64, dim=8, depths=(1,), num_classes=5).eval().requires_grad_(False)
    x = torch.randn(1, 3, 64, 64)
    found = export.export_to(tmp_path / "f.onnx", model, (x,))
    count = quantize(found.path, tmp_path / "q.onnx", x)
    graph = onnx.load(tmp_path / "q.onnx").graph
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    heat = [node for node in graph.node if node.op_type == "MatMul" and _class(node).endswith("HeatOperator")]
    assert len(heat) == 4, "two transforms and their inverses"
    assert not any(set(node.input) & dequantized for node in heat)
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul") and node not in heat]
    assert len(layers) == count
    assert all(set(node.input[:2]) <= dequantized for node in layers)


def _class(node: onnx.NodeProto) -> str:
    notes = {note.key: note.value for note in node.metadata_props}
    return str(json.loads(notes["pkg.torch.onnx.class_hierarchy"].replace("'", '"'))[-2])


@pytest.mark.parametrize("engine", HERE)
def test_int8_states_its_error(engine: str, folder: Path) -> None:
    record = measured(folder, engine=engine, dtype="int8")
    assert record.status == "ok", record.reason
    assert 1e-5 < record.metrics["int8_error"].value < 0.1  # type: ignore[operator]
    assert record.metrics["int8_agreement"].direction == "higher"
    assert record.metrics["engine_error"].value > 1e-5  # type: ignore[operator]


def test_pictures_to_calibrate_with_are_not_those_to_measure_with() -> None:
    one, other = pictures((3, 16, 24), False), pictures((3, 16, 24), True)
    assert one.shape[1:] == other.shape[1:] == (3, 16, 24)
    assert (len(one), len(other)) == (28, 12)
    assert not any(np.array_equal(a, b) for a in one for b in other)
    assert pictures((1, 8, 8), True).shape == (12, 1, 8, 8)
    with pytest.raises(UserError, match="takes 4"):
        pictures((4, 8, 8), True)
    assert [len(batch) for batch in batches(one, 16, 3)] == [16, 16]
    assert len(batches(one, 1, 5)) == 5


# in worker processes


@pytest.mark.slow
def test_live_workers_of_an_engine_take_turns(tmp_path: Path) -> None:
    cases = [
        Case(subject=f"support.engine_models:{name}", resolution=16, engine="onnxruntime") for name in ("tiny", "two")
    ]
    run = run_all(tmp_path, cases, ["cpu"], turns=True, ceiling_s=0.3, warmup_ceiling_s=0.1, min_samples=3)
    assert [record.status for record in run.records] == ["ok", "ok"], [record.reason for record in run.records]
    (session,) = {record.session for record in run.records}
    assert session
    assert all(len(record.samples["latency_s"].turns) > 1 for record in run.records)

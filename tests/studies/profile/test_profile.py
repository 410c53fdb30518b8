"""Taking a step apart: parts, ranges, traces, and the command."""

from __future__ import annotations

import gzip
import json
import os
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from support import forked
from vheatbench import cli
from vheatbench.case import Case
from vheatbench.measure.trace import BACKWARD, NO_OPERATOR, OPTIMIZER, OUTSIDE, Place, usage
from vheatbench.studies.profile.run import OPERATOR_REST, REST, module_labels, part_kinds
from vheatbench.studies.profile.shares import flops_by_place, module_ranges, profile_steps
from vheatbench.subjects.catalog import build
from vheatbench.subjects.closed_form import heat_operator_macs
from vheatbench.subjects.fused import fuses
from vheatbench.subjects.parts import part, profiling_parts

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("one_thread")


class Mixer(nn.Module):
    """A linear layer as one part, and a product as another with a module inside."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8, bias=False)
        self.norm = nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with part("linear"):
            x = self.linear(x)
        with part("product"):
            x = x @ self.norm(x).mT
        return x.exp()


# Parts


def test_a_part_costs_nothing_until_somebody_listens() -> None:
    assert part("dct") is part("idct")
    with part("dct"):
        pass
    heard = []

    @contextmanager
    def listener(name: str) -> Iterator[None]:
        heard.append(name)
        yield

    with pytest.raises(ZeroDivisionError), profiling_parts(listener), part("dct"), part("decay"):
        raise ZeroDivisionError
    with part("gate"):
        pass
    assert heard == ["dct", "decay"]
    assert part("dct") is part("idct")


def test_parts_break_no_graph() -> None:
    model, x = Mixer(), torch.randn(4, 8)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), model(x))
    exported = torch.export.export(model, (x,)).module()
    assert torch.equal(exported(x), model(x))


# Traces


def trace_of(*events: dict[str, Any]) -> dict[str, Any]:
    return {"traceEvents": list(events)}


def span(name: str, start: float, end: float, tid: int = 1, **arguments: object) -> dict[str, Any]:
    kind = "user_annotation" if name.startswith(("step/", "module/", "part/", "Optimizer.")) else "cpu_op"
    return {"ph": "X", "cat": kind, "name": name, "ts": start, "dur": end - start, "tid": tid, "args": arguments}


def launch(start: float, correlation: int, tid: int = 1) -> dict[str, Any]:
    event = span("cudaLaunchKernel", start, start + 1, tid, correlation=correlation)
    return {**event, "cat": "cuda_runtime"}


def kernel(name: str, start: float, duration: float, correlation: int) -> dict[str, Any]:
    event = span(name, start, start + duration, 99, correlation=correlation)
    return {**event, "cat": "kernel"}


def allocation(at: float, size: int, device: int = 0) -> dict[str, Any]:
    arguments = {"Bytes": size, "Device Type": device}
    return {"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "ts": at, "tid": 1, "args": arguments}


def microseconds(seconds: dict[Place, float]) -> dict[Place, float]:
    return {place: pytest.approx(value * 1e6) for place, value in seconds.items()}  # type: ignore[misc]


def test_time_on_a_cpu_is_what_inner_ranges_do_not_take() -> None:
    used = usage(
        trace_of(
            span("module/late", -20, -10),  # in no step
            span("step/0", 0, 100),
            span("module/", 10, 90),
            span("module/a", 20, 60),
            span("part/dct", 30, 50),
            span("aten::mm", 35, 45),
            span("aten::empty", 36, 38),
            span("aten::add", 70, 80),
            span("aten::add", 82, 84),
            allocation(37, 64),
            allocation(37, 640, device=1),
            allocation(65, 16),
            allocation(66, -16),
            allocation(200, 7),
            span("aten::elsewhere", 20, 60, tid=2),
        ),
        "cpu",
    )
    expected = {Place(OUTSIDE, ""): 20, Place("", ""): 40, Place("a", ""): 20, Place("a", "dct"): 20}
    assert microseconds(used.seconds) == expected
    assert used.allocated_bytes == {Place("a", "dct"): 64, Place("", ""): 16}
    assert {name: (round(op.seconds * 1e6), op.calls) for name, op in used.operators.items()} == {
        NO_OPERATOR: (78, 0),
        "aten::mm": (8, 1),
        "aten::empty": (2, 1),
        "aten::add": (12, 2),
    }
    assert used.step_s == pytest.approx(100e-6)


def test_every_figure_is_the_median_over_the_steps() -> None:
    events = []
    for number, took in enumerate((10, 30, 80)):
        start = 1000 * number
        events += [span(f"step/{number}", start, start + 100), span("module/a", start, start + took)]
        events += [allocation(start + 1, took)] * (number + 1)
    used = usage(trace_of(*events), "cpu")
    assert microseconds(used.seconds) == {Place("a", ""): 30, Place(OUTSIDE, ""): 70}
    assert used.allocated_bytes == {Place("a", ""): 60}


def test_backward_belongs_to_the_module_whose_forward_made_the_node() -> None:
    used = usage(
        trace_of(
            span("step/0", 0, 100),
            span("module/a", 0, 20),
            # the view sees the number that the next operator's node takes
            span("aten::view", 2, 4, **{"Sequence number": 7}),
            span("module/a.b", 5, 15),
            span("part/linear", 6, 14),
            span("aten::addmm", 7, 13, **{"Sequence number": 7}),
            span(BACKWARD + "AddmmBackward0", 30, 60, **{"Sequence number": 7}),
            span("aten::mm", 35, 45, **{"Sequence number": 8}),
            span("part/dct", 46, 50),
            span(BACKWARD + "Unheard", 61, 62, **{"Sequence number": 8}),
            span("Optimizer.step#AdamW.step", 70, 95),
        ),
        "cpu",
    )
    assert microseconds(used.seconds) == {
        Place("a", ""): 10,
        Place("a.b", ""): 2,
        Place("a.b", "linear"): 8 + 26,
        Place("a.b", "dct"): 4,
        Place(OPTIMIZER, ""): 25,
        Place(OUTSIDE, ""): 100 - 20 - 30 - 25,
    }
    assert used.operators["AddmmBackward0"].seconds == pytest.approx(20e-6)


def test_kernels_belong_to_where_they_were_launched() -> None:
    used = usage(
        trace_of(
            span("step/0", 0, 100),
            span("module/a", 10, 30),
            span("aten::mm", 12, 20, **{"Sequence number": 3}),
            launch(13, correlation=1),
            span("part/gate", 21, 29),
            launch(22, correlation=2),  # of Triton: in no operator
            # backward runs in a thread of its own
            span(BACKWARD + "MmBackward0", 40, 60, tid=2, **{"Sequence number": 3}),
            span("aten::mm", 41, 50, tid=2),
            launch(42, correlation=3, tid=2),
            launch(200, correlation=4),  # after the step
            kernel("gemm", 50, 30, correlation=1),
            kernel("heat_kernel", 80, 5, correlation=2),
            kernel("gemm", 85, 10, correlation=3),
            kernel("gemm", 210, 10, correlation=4),
            allocation(14, 32, device=1),
            allocation(14, 8),
        ),
        "cuda",
    )
    assert microseconds(used.seconds) == {Place("a", ""): 40, Place("a", "gate"): 5}
    assert {name: round(op.seconds * 1e6) for name, op in used.operators.items()} == {"aten::mm": 40, "heat_kernel": 5}
    assert used.allocated_bytes == {Place("a", ""): 32}


def test_a_trace_without_steps_is_refused() -> None:
    with pytest.raises(ValueError, match="no step"):
        usage(trace_of(span("aten::mm", 0, 1)), "cpu")


# Ranges around modules


def test_a_real_trace_names_modules_and_parts_forward_and_backward() -> None:
    model, x = Mixer(), torch.randn(4, 8)
    optimizer = torch.optim.SGD(model.parameters())

    def step() -> None:
        model(x).sum().backward()
        optimizer.step()

    used = usage(profile_steps(step, 3, CPU, model, profiling_parts), "cpu")
    inside = {Place("", ""), Place("", "product"), Place("linear", "linear"), Place("norm", "product")}
    assert inside < set(used.seconds)
    assert {place.module for place in used.seconds} == {"", "linear", "norm", OUTSIDE, OPTIMIZER}
    # every figure is a median of its own, so that the sum may be less than the step
    assert 0 < sum(used.seconds.values()) <= 1.5 * used.step_s
    assert used.operators["aten::exp"].calls == 1
    # gradients of the product's two factors, and of the linear layer's weight
    assert used.operators["aten::mm"].calls == 1 + 1 + 2 + 1
    assert used.allocated_bytes[Place("linear", "linear")] >= 4 * 8 * 4 + 8 * 8 * 4
    names = {event["name"] for event in profile_steps(step, 1, CPU)["traceEvents"]}
    assert not any(name.startswith(("module/", "part/")) for name in names)


def test_ranges_change_nothing_that_a_model_can_see() -> None:
    class Shy(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hooks = self._forward_hooks or self._forward_pre_hooks
            return super().forward(x) if hooks else x.exp()

    model, x = nn.Sequential(Shy(4, 4)), torch.zeros(2, 4)
    used = usage(profile_steps(lambda: model(x), 1, CPU, model), "cpu")
    assert Place("0", "") in used.seconds
    assert "aten::exp" in used.operators
    assert "aten::addmm" not in used.operators


def test_ranges_close_when_a_module_raises() -> None:
    class Raises(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ZeroDivisionError

    log: list[str] = []

    class Listener:
        def __init__(self, name: str) -> None:
            self.name = name

        def __enter__(self) -> None:
            log.append(f"+{self.name}")

        def __exit__(self, *_: object) -> None:
            log.append(f"-{self.name}")

    model = nn.Sequential(nn.Identity(), Raises())
    with pytest.raises(ZeroDivisionError), module_ranges(model, Listener):
        model(torch.zeros(1))
    assert log == ["+module/", "+module/0", "-module/0", "+module/1", "-module/1", "-module/"]


def test_flops_by_place_add_up() -> None:
    model = Mixer().to("meta")
    flops = flops_by_place(model, lambda: model(torch.empty(4, 8, device="meta")), profiling_parts)
    assert flops == {Place("linear", "linear"): 2 * 4 * 8 * 8, Place("", "product"): 2 * 4 * 8 * 4}


@pytest.mark.parametrize("mode", ["infer", "forward"])
def test_flops_of_the_operators_parts_are_the_closed_form(mode: str) -> None:
    case = Case(subject="test_vheat", resolution=64, batch=2, mode=mode)  # type: ignore[arg-type]
    model = build(case, "meta").model.eval().requires_grad_(False)
    flops = flops_by_place(model, lambda: model(torch.empty(2, 3, 64, 64, device="meta")), profiling_parts)
    found: Counter[str] = Counter()
    for place, count in flops.items():
        found[place.part] += count
    expected: Counter[str] = Counter()
    side, channels = 64 // 4, model.stem.conv2.conv.out_channels  # type: ignore[union-attr]
    for stage in model.stages:  # type: ignore[union-attr]
        macs = heat_operator_macs(2, side, side, channels, train_form=mode == "forward")
        for name, count in macs.items():
            expected[name] += 2 * count * len(stage.blocks)
        side, channels = side // 2, channels * 2
    assert found["dwconv"] == expected["dwconv"] > 0
    assert found["linear"] == expected["linear"]
    assert found["dct"] == found["idct"] == expected["dct_idct"] / 2
    assert found["out"] == expected["out_linear"]
    assert found["decay"] == expected["to_k"]
    assert not found["norm"]
    assert not found["gate"]


# Rows


def test_repeated_modules_share_a_row() -> None:
    model = nn.ModuleDict(
        {
            "stem": nn.Sequential(nn.ReLU(), nn.ReLU()),
            "blocks": nn.Sequential(*(nn.ModuleDict({"mlp": nn.Linear(4, 4)}) for _ in range(3))),
            "mixed": nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8)),
        }
    )
    labels = module_labels(model, 2)
    assert labels[""] == ""
    assert labels["stem.1"] == "stem.1"  # nothing to tell two alike by: they hold no parameters
    assert labels["blocks.1"] == "blocks.*"
    assert labels["blocks.1.mlp"] == "blocks.*.mlp"
    assert [labels[f"mixed.{i}"] for i in range(3)] == ["mixed.0", "mixed.1-2", "mixed.1-2"]
    assert set(module_labels(model, 1).values()) == set(labels.values()) - {"blocks.*.mlp"}


def test_parts_of_the_model_around_the_operator() -> None:
    model = build(Case(subject="test_vheat", resolution=64, mode="forward"), "meta").model
    kinds = part_kinds(model)
    assert kinds[""] == kinds["stages.0"] == REST
    assert kinds["stem.conv1.norm"] == kinds["stages.1.downsample.conv"] == "stem, downsample"
    assert kinds["stages.0.blocks.0"] == kinds["stages.0.blocks.0.drop_path1"] == "residual"
    assert kinds["stages.0.blocks.0.norm2"] == "block norm"
    assert kinds["stages.0.blocks.0.mlp.fc1"] == "mlp"
    assert kinds["stages.0.blocks.0.op.dwconv"] == kinds["stages.0.blocks.0.op"] == OPERATOR_REST
    assert kinds["norm"] == kinds["head.fc"] == "head"


# The command

Called = tuple[int, str, str]


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], in_process: None
) -> Iterator[Callable[..., Called]]:
    """``vheatbench profile ARGUMENTS`` in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    # what the command sets must not outlive it
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("KINETO_LOG_LEVEL", "6")
    limit = resource.getrlimit(resource.RLIMIT_DATA)

    def call(*arguments: object) -> Called:
        monkeypatch.setattr(sys, "argv", ["vheatbench", "profile", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capsys.readouterr()

    yield call
    resource.setrlimit(resource.RLIMIT_DATA, limit)


def assert_shares_are_whole(rows: list[dict[str, Any]], *names: str) -> None:
    for name in names:
        assert sum(row[f"{name}_share"] for row in rows) == pytest.approx(1)
        assert all(row[f"{name}_share"] >= 0 for row in rows)


def test_vheat_by_module_part_and_operator(call: Callable[..., Called], tmp_path: Path) -> None:
    arguments = ("--model", "test_vheat", "--resolution", 64, "--device", "cpu", "--steps", 2)
    code, out, err = call(*arguments, "--json", "--depth", 3)
    assert code == 0, err
    found = json.loads(out)["profile"]
    assert_shares_are_whole(found["modules"], "seconds", "flops", "allocated_bytes", "params")
    assert_shares_are_whole(found["parts"], "seconds", "flops", "allocated_bytes")
    assert_shares_are_whole(found["operators"], "seconds")
    # the path that runs without a profiler, not the plain one that layers with listeners take
    fused_products = any(row["operator"] == "mkldnn::_linear_pointwise" for row in found["operators"])
    assert fused_products == fuses(torch.zeros(1))
    model = build(Case(subject="test_vheat", resolution=64)).model
    assert sum(row["params"] for row in found["modules"]) == sum(p.numel() for p in model.parameters())
    modules = {row["module"]: row for row in found["modules"]}
    assert modules["stages.2.blocks.*.mlp"]["count"] == 2
    parts = {row["part"]: row for row in found["parts"]}
    for name in ("dwconv", "linear", "dct", "decay", "idct", "norm", "gate", "out", "mlp", "head"):
        assert parts[name]["seconds"] > 0, name
    assert parts["linear"]["allocated_bytes"] > 0
    mlps = sum(row["flops"] for name, row in modules.items() if name.endswith(".mlp"))
    assert parts["mlp"]["flops"] == mlps > 0
    assert found["profiled_step_s"] > 0 < found["step_s"]
    trace = json.loads(gzip.decompress(Path(found["trace"]).read_bytes()))
    names = {event["name"] for event in trace["traceEvents"]}
    assert {"step/0", "step/1", "module/stages.2.blocks.1.op", "part/idct"} <= names

    code, out, err = call(*arguments, "--out", tmp_path / "trace.json")
    assert code == 0
    assert "stages.2.blocks.* ×2" in out
    assert out.count("100.0%") == 4 + 3
    assert "profiled" in err
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_training_any_timm_model_has_no_parts(call: Callable[..., Called]) -> None:
    code, out, err = call("--model", "test_vit", "--resolution", 32, "--mode", "train", "--json", "--steps", 1)
    assert code == 0, err
    found = json.loads(out)["profile"]
    assert found["parts"] is None
    modules = {row["module"]: row for row in found["modules"]}
    assert_shares_are_whole(found["modules"], "seconds", "flops", "allocated_bytes", "params")
    assert modules[OPTIMIZER]["seconds"] > 0
    assert any(row["operator"] == "AddmmBackward0" for row in found["operators"])


def test_compiled_models_have_operators_only(call: Callable[..., Called], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)  # the compiler takes half a minute
    monkeypatch.setenv("TORCHINDUCTOR_CPP_ENABLE_KERNEL_PROFILE", "1")
    code, out, err = call("--model", "test_vheat", "--resolution", 64, "--compile", "--steps", 1, "--json")
    assert code == 0, err
    found = json.loads(out)["profile"]
    assert "seconds" not in found["modules"][0]
    assert_shares_are_whole(found["modules"], "flops", "params")
    assert_shares_are_whole(found["operators"], "seconds")
    trace = json.loads(gzip.decompress(Path(found["trace"]).read_bytes()))
    assert not any(event["name"].startswith(("module/", "part/")) for event in trace["traceEvents"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "vheat_tinny"], "unknown model 'vheat_tinny'"),
        (["--model", "op/heat"], "'op/heat' is no model"),
        (["--dtype", "float8"], "allowed: float32"),
        (["--mode", "deploy"], "allowed: infer"),
        (["--resolution", "64x"], "--resolution"),
        (["--device", "cuda:1"], "CUDA_VISIBLE_DEVICES"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--dtype", "tf32", "--device", "cpu"], "tf32"),
        (["--out", "/dev/null/trace.json"], "--trace /dev/null/trace.json: cannot be written"),
        (["--out", "."], "--trace .: cannot be written"),
    ],
)
def test_bad_input_is_one_line(call: Callable[..., Called], arguments: list[str], words: str) -> None:
    code, out, err = call("--model", "test_vheat", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("vheatbench: ")
    assert err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize("arguments", [["--depth", "0"], ["--steps", "0"], ["--batch", "0"]])
def test_counts_start_at_one(call: Callable[..., Called], arguments: list[str]) -> None:
    code, _, err = call(*arguments)
    assert code == 2
    assert arguments[0] in err


def test_weights_that_two_modules_share_count_once(call: Callable[..., Called], tmp_path: Path) -> None:
    (tmp_path / "tied_profile_model.py").write_text(
        "import torch\n"
        "class Tied(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.a, self.b = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)\n"
        "        self.b.weight = self.a.weight\n"
        "    def forward(self, images):\n"
        "        return self.b(self.a(images.mean((2, 3))))\n"
    )
    code, out, err = call("--model", "tied_profile_model:Tied", "--resolution", 32, "--device", "cpu", "--json")
    assert code == 0, err
    assert {row["module"]: row["params"] for row in json.loads(out)["profile"]["modules"]} == {
        "(the model itself)": 0, "a": 12, "b": 3, OUTSIDE: 0,
    }  # fmt: skip


def test_what_a_model_does_wrong_is_one_line(call: Callable[..., Called], tmp_path: Path) -> None:
    (tmp_path / "bad_profile_model.py").write_text(
        "import torch\n"
        "class Bad(torch.nn.Module):\n"
        "    def forward(self, images):\n"
        "        print('rubbish')\n"
        "        if not images.is_meta: raise RuntimeError('first line' + chr(10) + 'second')\n"
        "        return images\n"
    )
    code, out, err = call("--model", "bad_profile_model:Bad", "--resolution", 32, "--device", "cpu")
    assert (code, out) == (6, "")
    assert "RuntimeError: first line\n" in err


def test_a_real_process_keeps_stdout_for_the_tables(tmp_path: Path) -> None:
    arguments = ["--model", "test_vheat", "--resolution", "64", "--device", "cpu", "--steps", "1", "--json"]
    done = forked.run(
        [sys.executable, "-m", "vheatbench", "profile", *arguments],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["profile"]["case"]["subject"] == "test_vheat"
    assert [path.name for path in (tmp_path / "reports").iterdir()] == [
        "profile-test_vheat-64-b1-float32-infer-cpu.json.gz"
    ]

"""Operators: what they compute, what they cost, what a record of one holds, and the device's ceilings."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from support import forked
from support.run_files import write_run
from vheatbench.analysis.operators import EXPONENTS, theory_of
from vheatbench.case import Case
from vheatbench.cli.table import print_run
from vheatbench.engines import check_engine
from vheatbench.errors import UserError
from vheatbench.measure.flops import count_flops
from vheatbench.measure.kernels import attention_kernels
from vheatbench.report.page import render
from vheatbench.run.ceiling import ceiling_metric, ceiling_step
from vheatbench.run.counts import count_operator
from vheatbench.run.inspect import inspect
from vheatbench.run.largest_batch import largest_batch
from vheatbench.run.measure_case import measure_case
from vheatbench.run.step import place, prepare
from vheatbench.run.task import InspectTask, MeasureTask
from vheatbench.store import Metric, Record, read_run
from vheatbench.subjects.catalog import build, list_subjects
from vheatbench.subjects.closed_form import OperatorMacs, conduction_macs, operator_min_bytes, operator_step_macs
from vheatbench.subjects.heat.cosines import cosine_matrix
from vheatbench.subjects.operators import OPERATORS, Operator, build_operator, heat_backend, operator_macs
from vheatbench.subjects.token_mixers import relative_position
from vheatbench.suites import SuitePolicy, ceiling_cases

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
META = torch.device("meta")
MODES = ("infer", "forward_backward")
QUICK = SuitePolicy(min_samples=3, ceiling_s=0.05, warmup_ceiling_s=0.05)


def case(name: str, grid: tuple[int, int] = (9, 12), channels: int = 64, **axes) -> Case:
    return Case(subject=f"op/{name}", resolution=grid, channels=channels, **axes)


def built(one: Case) -> tuple[torch.nn.Module, tuple[Tensor, ...]]:
    """Module and inputs of a batch of 2 in float64."""
    it = build_operator(one)
    torch.manual_seed(1)
    return it.model.double(), it.inputs(2, CPU, torch.float64)


def run(one: Case) -> Record:
    return measure_case(MeasureTask(case=one, policy=QUICK))


# what they compute, against other ways to write it


def dense(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """Softmax attention as in the paper, (..., N, d)."""
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]) + bias
    return torch.softmax(scores, dim=-1) @ v


@pytest.mark.parametrize("name", ["attention", "attention-flash", "attention-math"])
def test_global_attention_is_dense_softmax_attention(name: str) -> None:
    model, (q, k, v) = built(case(name))
    assert q.shape == (2, 2, 108, 32)
    torch.testing.assert_close(model(q, k, v), dense(q, k, v))


def test_linear_attention_is_the_quadratic_formula() -> None:
    model, (q, k, v) = built(case("linear-attention"))
    weights = (F.elu(q) + 1) @ (F.elu(k) + 1).transpose(-2, -1)
    torch.testing.assert_close(model(q, k, v), weights / weights.sum(-1, keepdim=True) @ v, rtol=1e-6, atol=1e-6)


def test_linear_attention_is_finite_in_half_precision_on_a_large_grid() -> None:
    model, _ = built(case("linear-attention"))
    q, k, v = torch.randn(3, 1, 1, 256 * 256, 32, generator=torch.Generator().manual_seed(0)).abs()
    assert torch.isfinite(model(q.half(), k.half(), v.half())).all()


def windows_by_loop(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor) -> Tensor:
    """Attention of every 7 x 7 window of (H, W, C) on its own, on a grid padded with what is given."""
    out = torch.zeros_like(v)
    for top in range(0, q.shape[0], 7):
        for left in range(0, q.shape[1], 7):
            cells = slice(top, top + 7), slice(left, left + 7)
            parts = [x[cells].reshape(49, heads, -1).transpose(0, 1) for x in (q, k, v)]
            out[cells] = dense(*parts, bias).transpose(0, 1).reshape(7, 7, -1)
    return out


@pytest.mark.parametrize("grid", [(7, 14), (9, 12), (3, 5)])
def test_window_attention_core_is_attention_in_each_window_of_the_padded_grid(grid: tuple[int, int]) -> None:
    model, (qkv,) = built(case("window-attention", grid))
    height, width = grid
    padded = F.pad(qkv, (0, 0, 0, -width % 7, 0, -height % 7))
    out = model(qkv)
    assert out.shape == (2, *grid, 64)
    for image in range(2):
        q, k, v = padded[image].chunk(3, dim=-1)
        torch.testing.assert_close(out[image], windows_by_loop(q, k, v, 2, torch.zeros(()))[:height, :width])


@pytest.mark.parametrize("grid", [(7, 14), (9, 12)])
def test_window_attention_layer_is_swins(grid: tuple[int, int]) -> None:
    """Against timm's own WindowAttention, fed with windows cut by hand."""
    from timm.models.swin_transformer import WindowAttention

    model, (x,) = built(case("window-attention", grid, part="layer"))
    torch.nn.init.normal_(model.bias_table)
    swin = WindowAttention(64, num_heads=2, window_size=7).double().eval()
    renamed = {"bias_table": "relative_position_bias_table"}
    swin.load_state_dict({renamed.get(name, name): value for name, value in model.state_dict().items()}, strict=False)
    padded = F.pad(x, (0, 0, 0, -grid[1] % 7, 0, -grid[0] % 7))
    expected = torch.zeros_like(padded)
    for top in range(0, padded.shape[1], 7):
        for left in range(0, padded.shape[2], 7):
            cells = slice(None), slice(top, top + 7), slice(left, left + 7)
            expected[cells] = swin(padded[cells].reshape(2, 49, 64)).reshape(2, 7, 7, 64)
    torch.testing.assert_close(model(x), expected[:, : grid[0], : grid[1]])


def test_relative_positions_number_the_offsets() -> None:
    table = relative_position(3)
    cells = [(y, x) for y in range(3) for x in range(3)]
    offsets = {}
    for i, (y, x) in enumerate(cells):
        for j, (v, u) in enumerate(cells):
            offsets.setdefault(int(table[i, j]), set()).add((y - v, x - u))
    assert sorted(offsets) == list(range(25))
    assert all(len(pairs) == 1 for pairs in offsets.values())


@pytest.mark.parametrize("core", ["softmax", "linear"])
def test_attention_layers_are_projections_around_the_core(core: str) -> None:
    model, (x,) = built(case("attention" if core == "softmax" else "linear-attention", part="layer"))
    qkv = x.reshape(2, 108, 64) @ model.qkv.weight.t() + model.qkv.bias
    # channels of the projection: q, k, v, each by heads
    q, k, v = (part.reshape(2, 108, 2, 32).transpose(1, 2) for part in qkv.split(64, dim=-1))
    if core == "softmax":
        mixed = dense(q, k, v)
    else:
        weights = (F.elu(q) + 1) @ (F.elu(k) + 1).transpose(-2, -1)
        mixed = weights / weights.sum(-1, keepdim=True) @ v
    expected = mixed.transpose(1, 2).reshape(2, 9, 12, 64) @ model.proj.weight.t() + model.proj.bias
    torch.testing.assert_close(model(x), expected, rtol=1e-6, atol=1e-6)


def convolved(x: Tensor, weight: Tensor) -> Tensor:
    """(B, H, W, C) with a kernel (C, 7, 7), cell by cell."""
    padded = F.pad(x, (0, 0, 3, 3, 3, 3))
    height, width = x.shape[1:3]
    shifts = [(i, j) for i in range(7) for j in range(7)]
    return sum((padded[:, i : i + height, j : j + width] * weight[:, i, j] for i, j in shifts), torch.zeros_like(x))


def test_depthwise_convolution_core_and_layer() -> None:
    model, (x,) = built(case("depthwise-conv"))
    assert model.conv.bias is None
    torch.testing.assert_close(model(x), convolved(x, model.conv.weight[:, 0]))
    layer, (x,) = built(case("depthwise-conv", part="layer"))
    both = x @ layer.linear.weight.t() + layer.linear.bias
    field = convolved(both[..., :64], layer.core.conv.weight[:, 0]) + layer.core.conv.bias
    gate = both[..., 64:]
    expected = (field * gate * torch.sigmoid(gate)) @ layer.proj.weight.t() + layer.proj.bias
    torch.testing.assert_close(layer(x), expected)


HEAT = [name for name in OPERATORS if "heat" in name and "triton" not in name]


@pytest.mark.parametrize("name", HEAT)
def test_heat_core_is_conduction_by_its_backend(name: str) -> None:
    model, (x,) = built(case(name.removeprefix("op/")))
    d_h, d_w = cosine_matrix(9), cosine_matrix(12)
    spectrum = torch.einsum("nh,mw,bhwc->bnmc", d_h, d_w, x) * model.decay
    expected = torch.einsum("nh,mw,bnmc->bhwc", d_h, d_w, spectrum)
    assert 0 < model.decay.min() < 0.5 < model.decay.max() <= 1, "a decay that decays"
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)
    # not merely the same numbers: the backend that the name says
    assert heat_backend(case(name.removeprefix("op/")), CPU, torch.float32) == (name.partition("-")[2] or "matmul")


@pytest.mark.parametrize("name", HEAT)
def test_heat_layer_gives_the_same_in_both_forms(name: str) -> None:
    deploy, (x,) = built(case(name.removeprefix("op/"), part="layer", mode="infer"))
    training, _ = built(case(name.removeprefix("op/"), part="layer", mode="forward"))
    assert deploy.embedding is None
    assert training.op.to_k is not None
    with torch.no_grad():
        torch.testing.assert_close(deploy(x), training(x), rtol=1e-6, atol=1e-6)


def test_the_layers_of_all_heat_backends_agree() -> None:
    outputs = []
    for name in HEAT:
        model, (x,) = built(case(name.removeprefix("op/"), part="layer"))
        outputs.append(model(x))
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0], rtol=1e-9, atol=1e-9)


def test_the_step_with_backward_gives_the_gradients_and_keeps_none() -> None:
    one = case("attention", part="layer", mode="forward_backward")
    it = build_operator(one)
    model = place(it, one, CPU)
    step = prepare(model, it, 2, one, CPU).step
    gradients = step()
    assert [g.shape for g in gradients] == [torch.Size((2, 9, 12, 64)), *(p.shape for p in model.parameters())]
    assert all(g.abs().max() > 0 for g in gradients)
    assert all(p.grad is None for p in model.parameters())
    for first, second in zip(gradients, step(), strict=True):
        torch.testing.assert_close(first, second)


# what they cost


@pytest.mark.parametrize("mode", ["infer", "forward", "forward_backward"])
@pytest.mark.parametrize("part", ["core", "layer"])
@pytest.mark.parametrize("name", OPERATORS)
def test_closed_forms_equal_the_counter(name: str, part: str, mode: str) -> None:
    one = case(name.removeprefix("op/"), (15, 26), part=part, mode=mode)
    it = build_operator(one, META)
    model = place(it, one, META)
    inputs = it.inputs(3, META, torch.float32)
    with it.context():
        count = count_flops(lambda: model(*inputs))
    backend = OPERATORS[name].backend
    parts = operator_macs(one, 3, {"auto": "matmul", "triton": "matmul"}.get(backend or "", backend))
    if backend == "fft":
        assert count.suspicious == ["aten._fft_c2r", "aten._fft_r2c"], "the counter knows no FFT, and says so"
        parts.pop("dct_idct")
    else:
        assert count.suspicious == []
    assert count.macs == sum(parts.values())


def test_closed_forms_by_hand() -> None:
    assert conduction_macs(14, 14, 96, "matmul") == 2 * 14**2 * 96 * 28
    assert conduction_macs(14, 28, 1, "symmetric") == conduction_macs(14, 28, 1, "official") / 2
    assert conduction_macs(3, 1, 1, "symmetric") == 2 * (5 + 3), "ceil(9/2) and 3 lines of one"
    assert 2 * conduction_macs(16, 16, 10, "fft") == 5 * 256 * 8 * 10
    assert operator_macs(case("attention", (4, 4), 32), 2) == {"attention": 2 * 2 * 16**2 * 32}
    assert operator_macs(case("window-attention", (8, 7), 32), 1) == {"attention": 2 * 98 * 49 * 32}, "padding counts"
    layer = operator_macs(case("heat", (4, 4), 32, part="layer", mode="forward"), 5, "matmul")
    assert layer["to_k"] == 16 * 32**2, "k is predicted once for all images"
    assert layer["linear"] == 5 * 2 * 16 * 32**2


def test_an_operator_is_counted_by_its_own_formula_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    attention = OPERATORS["op/attention"]
    strided = dataclasses.replace(attention, macs=lambda case, backend: OperatorMacs({"attention": 7.0}, {"qkv": 5.0}))
    monkeypatch.setitem(OPERATORS, "op/attention-strided", strided)
    record = Record(case=case("attention-strided"), case_id="", status="ok", started="")
    count_operator(record.case, build_operator(record.case), 2, None, record)
    assert record.metrics["flops_per_step"].value == 2 * 2 * 7
    assert operator_macs(case("attention-strided", part="layer"), 3) == {"attention": 21, "qkv": 15}
    with pytest.raises(TypeError, match="macs"):
        type(attention)(core=attention.core, layer=attention.layer)  # type: ignore[call-arg]
    with pytest.raises(KeyError):
        conduction_macs(14, 14, 96, "a backend of tomorrow")


class Mean(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2), keepdim=True).expand_as(x).contiguous()


def test_an_operator_that_multiplies_nothing_is_one_entry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = Operator(lambda case: Mean(), lambda case: Mean(), lambda case, _: OperatorMacs({}, {}), exponent=1.25)
    monkeypatch.setitem(OPERATORS, "op/mean", nothing)
    measured = [run(case("mean", (side, side), mode=mode)) for side in (4, 6, 9) for mode in MODES]
    for record in measured:
        assert record.status == "ok"
        assert not [text for text in record.warnings if "counts" in text]
        assert (record.metrics["macs"].value, record.metrics["flops_per_step"].value) == (0, 0)
        assert record.metrics["min_bytes"].value > 0
    saved = read_run(write_run(tmp_path, measured))
    print_run(saved)
    assert "op/mean" in capsys.readouterr().out
    assert "<td>1.25</td>" in render([saved]), "the exponent that the entry gives"


def test_records_of_known_operators_expect_what_their_entries_say() -> None:
    built = build_operator(case("heat-fft"))
    record = Record(case=case("heat-fft"), case_id="", status="ok", started="", subject=built.facts)
    assert theory_of("op/heat-fft", [record]) == theory_of("op/heat-fft", []) == "1 and a log N"
    assert {name: OPERATORS[name].exponent for name in EXPONENTS} == EXPONENTS


def test_backward_doubles_conduction_and_triples_other_products() -> None:
    assert operator_step_macs({"dct_idct": 10, "linear": 1}, backward=False) == 11
    assert operator_step_macs({"dct_idct": 10, "linear": 1}, backward=True) == 23


def test_conduction_backward_really_costs_its_forward_once_more() -> None:
    one = case("heat-matmul", (15, 26), mode="forward_backward")
    it = build_operator(one, META)
    model = place(it, one, META)
    (x,) = it.inputs(2, META, torch.float32)
    x.requires_grad_()
    # not the step itself: torch's counter cannot follow autograd.grad to leaves
    count = count_flops(lambda: model(x).sum().backward())
    assert count.macs == operator_step_macs(operator_macs(one, 2, "matmul"), backward=True)


@pytest.mark.parametrize(
    ("name", "axes", "values"),
    [
        # B N C = 13824, N C = 6912
        ("heat", {}, 2 * 13824 + 6912),
        ("heat", {"mode": "forward_backward"}, 5 * 13824 + 3 * 6912),
        ("attention", {}, 4 * 13824),
        ("attention", {"mode": "forward_backward"}, 11 * 13824),
        ("window-attention", {}, 4 * 13824),
        ("linear-attention", {}, 4 * 13824),
        ("depthwise-conv", {}, 2 * 13824 + 49 * 64),
        ("attention", {"part": "layer"}, 2 * 13824 + 4 * 64 * 64 + 4 * 64),
    ],
)
def test_least_bytes_by_hand(name: str, axes: dict, values: int) -> None:
    one = case(name, dtype="bfloat16", **axes)
    record = Record(case=one, case_id=one.id, status="ok", started="now")
    count_operator(one, build(one), 2, OPERATORS[one.subject].backend and "matmul", record)
    assert record.metrics["min_bytes"].value == 2 * values
    assert operator_min_bytes(3, 2, 1, 4) == 24


# names, and what is refused


def test_operators_are_listed_with_the_models() -> None:
    assert ("op/heat", "") in list_subjects()
    assert [name for name, _ in list_subjects("op/")] == list(OPERATORS)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"subject": "op/hat"}, "unknown operator 'op/hat' (did you mean 'op/heat"),
        ({"subject": "op/nothing-like-it"}, "unknown operator 'op/nothing-like-it'; 'vheatbench models op/' lists all"),
        ({"mode": "train"}, "op/attention has no optimizer to step: measure it in mode forward_backward, not train"),
        ({"memory_format": "channels_last"}, "which is channels last already"),
        ({"fused_attention": False}, "chosen by name (op/attention-math)"),
        ({"channels": 40}, "40 channels cannot be split into heads of 32"),
        ({"options": {"head_dim": 0}}, "64 channels cannot be split into heads of 0"),
        ({"options": {"head_dim": "a"}}, "cannot be split into heads of 'a'"),
        ({"options": {"window": 7}}, "op/attention does not take the option 'window'; allowed: head_dim"),
        ({"subject": "op/heat", "options": {"head_dim": 8}}, "op/heat does not take the option 'head_dim'; allowed: "),
    ],
)
def test_what_no_operator_can_do_is_refused_before_the_run(axes: dict, message: str) -> None:
    one = Case.model_validate({"subject": "op/attention", "resolution": 8, "channels": 64, **axes})
    with pytest.raises(UserError) as caught:
        build(one)
    assert message in str(caught.value)
    assert inspect(InspectTask(cases=[one])).problems == [str(caught.value)]


def test_head_dim_is_an_option() -> None:
    model, inputs = built(case("attention", options={"head_dim": 16}))
    assert inputs[0].shape == (2, 4, 108, 16)
    assert model(*inputs).shape == inputs[0].shape


@pytest.mark.parametrize("mode", ["infer", "forward_backward"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("heat-triton", "op/heat-triton: the Triton kernels run on CUDA devices, not on cpu"),
        ("attention-efficient", "op/attention-efficient: torch has no such kernel for this device, dtype and shape"),
    ],
)
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the interpreter runs the kernels on a CPU")
def test_a_kernel_that_this_device_has_not_is_skipped(name: str, reason: str, mode: str) -> None:
    one = case(name, mode=mode)
    assert inspect(InspectTask(cases=[one], foresee=True)).forecasts[0].problem is None, "no reason to refuse a run"
    record = run(one)
    assert (record.status, record.reason) == ("skipped", reason)
    assert "latency_s" not in record.metrics


def test_forcing_a_kernel_ends_with_the_case() -> None:
    record = run(case("attention-math"))
    assert record.subject["kernel"] == "_scaled_dot_product_attention_math"
    assert run(case("attention")).subject["kernel"] == "_scaled_dot_product_flash_attention_for_cpu"


def test_kernels_are_found_not_assumed() -> None:
    q = torch.randn(1, 2, 8, 32)
    bias = torch.zeros(1, 2, 8, 8, requires_grad=True)
    assert attention_kernels(lambda: q + 1) == []
    fused = attention_kernels(lambda: F.scaled_dot_product_attention(q, q, q))
    assert fused == ["_scaled_dot_product_flash_attention_for_cpu"]
    # a bias that learns has no fused kernel on a CPU
    learning = attention_kernels(lambda: F.scaled_dot_product_attention(q, q, q, attn_mask=bias))
    assert learning == ["_scaled_dot_product_attention_math"]


# records


@pytest.mark.parametrize(
    ("name", "part", "mode", "form"),
    [
        ("op/heat", "core", "infer", "core"),
        ("op/heat", "layer", "infer", "layer, deploy form"),
        ("op/heat", "layer", "forward_backward", "layer, training form"),
        ("op/window-attention", "layer", "forward", "layer"),
        ("op/depthwise-conv", "core", "forward_backward", "core"),
    ],
)
def test_a_record_of_an_operator(name: str, part: str, mode: str, form: str) -> None:
    one = Case(subject=name, resolution=(8, 6), channels=32, part=part, mode=mode, batch=2)
    record = run(one)
    assert record.status == "ok", record.reason
    values = {key: metric.value for key, metric in record.metrics.items()}
    forward = sum(operator_macs(one, 2, "matmul" if name == "op/heat" else None).values())
    assert values["macs"] * 2 == values["flops"] == values["flops_per_step"] / 2
    assert (values["flops_per_step"] == 2 * forward) == (mode != "forward_backward")
    assert values["throughput_images_per_s"] == pytest.approx(2 / values["latency_s"])
    assert values["min_bytes"] > 0
    assert values["peak_allocated_bytes"] >= values["input_bytes"] + values["weights_bytes"]
    for key in ("macs", "flops", "flops_per_step", "min_bytes", "params"):
        assert record.metrics[key].deterministic
        assert record.metrics[key].direction == "lower"
    coverage = record.conditions["flops_coverage"]
    assert coverage["macs"] == coverage["closed_form_macs"] == forward
    assert coverage["disagreement with the closed form"] == 0
    assert record.subject["precision"] == "weights and input in float32"
    assert record.subject["form"] == form
    if name != "op/depthwise-conv":
        assert record.subject["kernel"]


def test_backward_says_how_it_was_counted() -> None:
    record = run(case("heat", mode="forward_backward"))
    forward = operator_macs(case("heat"), 1, "matmul")["dct_idct"]
    assert record.metrics["flops_per_step"].value == 2 * 2 * forward
    assert "conduction twice its forward" in record.metrics["flops"].how
    assert "of the matmul formulation" in record.metrics["flops"].how
    # the gradient that backward starts from is held beside the input
    assert record.metrics["input_bytes"].value == 2 * 4 * 108 * 64


def test_the_largest_batch_of_an_operator_is_a_metric() -> None:
    record = measure_case(
        MeasureTask(case=case("heat", batch="largest"), policy=QUICK.model_copy(update={"max_batch": 8}))
    )
    assert record.status == "ok", record.reason
    assert record.metrics["largest_batch"].value == 8
    assert record.metrics["flops_per_step"].value == 8 * record.metrics["flops"].value


def test_the_search_for_the_largest_batch() -> None:
    def up_to(limit: int):
        tried = []

        def attempt(batch: int) -> None:
            tried.append(batch)
            if batch > limit:
                raise RuntimeError("out of memory")

        found = largest_batch(attempt, lambda error: "memory" in str(error), CPU, 128)
        assert len(tried) <= 12
        return found.value

    def once(batch: int, seen: list[int]) -> None:
        if batch > 6 or (batch > 3 and batch in seen):
            raise RuntimeError("out of memory")
        seen.append(batch)

    seen: list[int] = []
    found = largest_batch(lambda batch: once(batch, seen), lambda error: "memory" in str(error), CPU, 128)
    assert found.value == 5, "6 fitted, but not once more"
    assert [up_to(limit) for limit in (1, 5)] == [1, 5]
    assert 90 < up_to(100) <= 100
    with pytest.raises(MemoryError, match="not even one image fits"):
        up_to(0)
    with pytest.raises(ZeroDivisionError):
        largest_batch(lambda batch: batch / 0, lambda error: False, CPU, 4)


def test_a_case_of_an_operator_says_its_channels_and_part() -> None:
    plain = Case(subject="op/heat", resolution=14)
    assert (plain.kind, plain.channels, plain.part, plain.tokens) == ("operator", 96, "core", 196.0)
    assert plain.id == Case(subject="op/heat", resolution=14, channels=96, part="core").id
    assert plain.label == "op/heat 14 b1 float32 infer core C=96"
    assert Case(subject="vheat-t", resolution=224).channels is None


def test_ids_of_published_runs_have_not_changed() -> None:
    """Cases are found again in other runs by their ids: those of the example runs were made before operators."""
    known = 0
    for path in (Path(__file__).parents[2] / "results" / "example").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            content = json.loads(line)
            if content["line"] == "record":
                assert Case.model_validate(content["case"]).id == content["case_id"]
                known += 1
    assert known > 20


# models without an optimizer, compiled


def test_a_model_forward_and_backward_keeps_its_weights() -> None:
    one = Case(subject="test_vheat", resolution=64, mode="forward_backward")
    it = build(one)
    model = place(it, one, CPU)
    before = [p.detach().clone() for p in model.parameters()]
    setup = prepare(model, it, 1, one, CPU)
    assert setup.step().ndim == 0
    assert all(torch.equal(p, b) and p.grad is None for p, b in zip(model.parameters(), before, strict=True))
    training = one.model_copy(update={"mode": "train"})
    prepare(model, it, 1, training, CPU).step()
    assert any(not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    assert it.facts["form"] == "training form"
    assert model.training


def test_forward_and_backward_of_a_model_counts_three_passes() -> None:
    macs = {}
    for mode in ("forward", "forward_backward"):
        record = run(Case(subject="test_vheat", resolution=32, mode=mode))
        assert record.status == "ok", record.reason
        macs[mode] = record.metrics["macs"].value
    assert macs["forward_backward"] == 3 * macs["forward"]


@pytest.mark.parametrize(("mode", "device"), [("train", "cpu"), ("forward_backward", "cpu"), ("infer", "cuda")])
def test_freezing_is_for_inference_on_a_cpu(mode: str, device: str) -> None:
    one = Case(subject="test_vit", resolution=64, compile="freezing", mode=mode, device=device)
    with pytest.raises(UserError, match=f"not in mode {mode} on {device}"):
        check_engine(one)
    check_engine(Case(subject="test_vit", resolution=64, compile="freezing"))
    check_engine(Case(subject="test_vit", resolution=64, compile=True, mode=mode, device=device))


def test_cuda_graphs_are_for_gpus() -> None:
    with pytest.raises(UserError, match="none on cpu"):
        check_engine(Case(subject="test_vit", resolution=64, compile="cudagraphs"))
    check_engine(Case(subject="test_vit", resolution=64, compile="cudagraphs", device="cuda", mode="train"))


@pytest.mark.slow
@pytest.mark.parametrize("compile_", [True, "freezing"])
def test_freezing_folds_the_weights_into_the_graph(compile_: bool | str) -> None:
    """Weights that are changed after compiling are only seen where they were not folded in."""
    torch._dynamo.reset()
    one = case("depthwise-conv", (5, 5), 8, part="layer", compile=compile_)
    it = build_operator(one)
    model = place(it, one, CPU)
    step = prepare(model, it, 1, one, CPU).step
    before = step().clone()
    torch.testing.assert_close(step(), before)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.data.zero_()
    assert bool((step() == 0).all()) == (compile_ is True)


# ceilings


def test_ceilings_are_larger_than_any_cache_and_of_every_dtype() -> None:
    for device, least in (("cpu", 256 * 2**20), ("cuda", 2 * 2**30)):
        for dtype, itemsize in (("float32", 4), ("tf32", 4), ("bfloat16", 2), ("float16", 2)):
            copy, matmul = ceiling_cases(device, dtype)
            assert (copy.kind, copy.dtype, copy.device) == ("ceiling", dtype, device)
            assert copy.pixels * itemsize == least, "read and written: twice that"
            assert 2048 <= matmul.resolution[0] == matmul.resolution[1] <= 8192


@pytest.mark.parametrize(
    ("name", "metric", "work"),
    [("copy", "bandwidth_bytes_per_s", 2 * 64 * 64 * 2), ("matmul", "rate_flop_per_s", 2 * 64**3)],
)
def test_a_record_of_a_ceiling(name: str, metric: str, work: int) -> None:
    record = run(Case(subject=f"ceiling/{name}", resolution=64, dtype="bfloat16"))
    assert record.status == "ok", record.reason
    latency, rate = record.metrics["latency_s"], record.metrics[metric]
    assert rate.value == pytest.approx(work / latency.value)
    assert (rate.low, rate.high) == pytest.approx((work / latency.high, work / latency.low))
    assert (rate.direction, rate.confidence) == ("higher", latency.confidence)
    assert set(record.metrics) == {"latency_s", metric}
    assert record.samples["latency_s"].values


def test_the_steps_of_ceilings_do_what_they_say() -> None:
    for name in ("copy", "matmul"):
        torch.manual_seed(0)
        out = ceiling_step(Case(subject=f"ceiling/{name}", resolution=8), CPU)()
        torch.manual_seed(0)
        a = torch.randn(8, 8)
        torch.testing.assert_close(out, a if name == "copy" else a @ torch.randn(8, 8))
    with pytest.raises(UserError, match="unknown ceiling 'ceiling/sky'; there are ceiling/copy, ceiling/matmul"):
        ceiling_step(Case(subject="ceiling/sky", resolution=8), CPU)


def test_the_metric_of_a_ceiling_by_hand() -> None:
    latency = Metric(value=2.0, low=1.0, high=4.0, confidence=0.95, unit="s", how="clock")
    metrics = ceiling_metric(Case(subject="ceiling/copy", resolution=(2, 3)), latency)
    assert (metrics["bandwidth_bytes_per_s"].value, metrics["bandwidth_bytes_per_s"].high) == (24.0, 48.0)


# from the command line, with real workers


def vheatbench(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    root = str(Path(__file__).parents[2])
    return forked.run(
        [sys.executable, "-m", "vheatbench", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_operators_from_the_command_line(tmp_path: Path) -> None:
    suite = {"subjects": ["vheat-t"], "policy": QUICK.model_dump(exclude_unset=True)}
    (tmp_path / "models.yaml").write_text(json.dumps(suite))
    sizes = ["--suite", "./models.yaml", "--grid", "4,8", "--channels", "32"]
    done = vheatbench(tmp_path, "run", *sizes, "--model", "op/heat,op/attention", "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    records = [Record.model_validate(record) for record in json.loads(done.stdout)["records"]]
    assert sorted((r.case.subject, r.case.size) for r in records) == [
        ("op/attention", "4"), ("op/attention", "8"), ("op/heat", "4"), ("op/heat", "8"),
    ]  # fmt: skip
    assert all(r.case.channels == 32 and r.case.part == "core" for r in records)
    kernels = {r.case.subject: r.subject["kernel"] for r in records}
    assert kernels == {"op/heat": "matmul", "op/attention": "_scaled_dot_product_flash_attention_for_cpu"}
    assert "GFLOP/s" in done.stderr


def test_a_dry_run_of_operators_foresees_cost_and_memory(tmp_path: Path) -> None:
    sizes = ["--grid", "8,64", "--part", "core,layer", "--mode", "infer,forward_backward", "--ceilings"]
    done = vheatbench(
        tmp_path, "run", *sizes, "--model", "op/heat,op/attention-math", "--dry-run", "--json", "--device", "cpu"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    forecasts = {Case.model_validate(c).label: f for c, f in zip(found["cases"], found["forecasts"], strict=True)}
    assert len(forecasts) == 2 + 16
    assert all(f["problem"] is None and f["seconds"] > 0 for f in forecasts.values())
    core = forecasts["op/heat 64 b1 float32 infer core C=96"]
    assert core["macs"] == conduction_macs(64, 64, 96, "matmul")
    copy, matmul = list(forecasts.values())[:2]
    assert (copy["macs"], copy["peak_bytes"]) == (0, 2 * 256 * 2**20)
    assert matmul["macs"] == 3072**3


@pytest.mark.parametrize(
    ("name", "mode"),
    [("op/heat", "infer"), ("op/attention", "infer"), ("op/attention-math", "infer"), ("op/heat", "forward_backward")],
)
def test_memory_is_foreseen_as_it_is_measured(name: str, mode: str) -> None:
    one = Case(subject=name, resolution=(24, 24), channels=32, mode=mode, part="layer" if mode == "infer" else "core")
    (forecast,) = inspect(InspectTask(cases=[one], foresee=True)).forecasts
    measured = run(one).metrics["peak_allocated_bytes"].value
    assert forecast.peak_bytes == pytest.approx(measured, rel=0.35)

"""Numbers of the Triton kernels, in Triton's interpreter: run by subjects/heat/test_triton.py in a process of its own.

The interpreter must be chosen (``TRITON_INTERPRET=1``) before Triton is imported. It runs one program after the
other in numpy, so maps are as small as the path through the kernels allows.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vheatbench.subjects.heat import launches as heat_launches
from vheatbench.subjects.heat import triton as heat_triton
from vheatbench.subjects.heat.cosines import cosine_matrix
from vheatbench.subjects.heat_operator import HeatOperator
from vheatbench.subjects.paths import plain_operations

TOLERANCE = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 3e-2}
SHAPES = [
    # one program holds the grid: pads 16 and 32, channels beside a multiple of the block, a batch of three
    (2, 7, 7, 20), (3, 14, 10, 5), (1, 5, 9, 33), (2, 1, 3, 4), (1, 14, 28, 3), (1, 32, 32, 9),
    # rows, columns, rows: every pad, odd and not square
    (2, 33, 17, 11), (1, 48, 40, 6), (1, 64, 20, 5), (1, 20, 100, 3), (1, 9, 129, 2), (1, 129, 9, 2),
]  # fmt: skip


def reference(x, decay):
    """The core in float64, by its definition."""
    x, decay = x.double(), decay.double()
    cos_h, cos_w = cosine_matrix(x.shape[1]), cosine_matrix(x.shape[2])
    spectrum = torch.einsum("nh,mw,bhwc->bnmc", cos_h, cos_w, x)
    return torch.einsum("nh,mw,bnmc->bhwc", cos_h, cos_w, spectrum * decay)


def error(ours, wanted):
    assert ours.shape == wanted.shape
    return ((ours.double() - wanted).norm() / wanted.norm()).item()


def halves(shape, dtype):
    """Field and gate, the two halves of one (B, H, W, 2 C) map, and a decay."""
    torch.manual_seed(0)
    batch, height, width, channels = shape
    wide = torch.randn(batch, height, width, 2 * channels, dtype=dtype)
    decay = torch.rand(height, width, channels, dtype=dtype)
    return wide[..., :channels], wide[..., channels:], decay


@pytest.mark.parametrize(
    ("shape", "dtype"),
    # tiles are chosen by bytes a value: grids of more than one program need no second type of two bytes
    [(shape, dtype) for shape in SHAPES for dtype in TOLERANCE if shape in SHAPES[:7] or dtype != torch.bfloat16],
    ids=str,
)
def test_conduction_and_its_gradients(shape, dtype):
    x, _, decay = halves(shape, dtype)
    x.requires_grad_()
    decay.requires_grad_()
    assert heat_triton.unsupported(x, decay) is None
    y = heat_triton.conduct(x, decay)
    grad = torch.randn_like(y)
    ours = (y, *torch.autograd.grad(y, (x, decay), grad))
    wanted = reference(x, decay)
    for mine, true in zip(ours, (wanted, *torch.autograd.grad(wanted, (x, decay), grad.double())), strict=True):
        assert mine.dtype == dtype
        assert mine.is_contiguous()
        assert error(mine, true.double()) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [*SHAPES[:4], (2, 5, 40, 70), (1, 34, 5, 3)], ids=str)
@pytest.mark.parametrize("affine", [True, False])
def test_norm_and_gate(shape, dtype, affine):
    x, gate, decay = halves(shape, dtype)
    channels = shape[3:]
    weight, bias = (torch.randn(channels, dtype=dtype), torch.randn(channels, dtype=dtype)) if affine else (None, None)
    # an epsilon that matters and a field far from zero mean: the kernel's own formula must have both
    ours = heat_triton.conduct_norm_gate(x + 1, decay, gate, weight, bias, 0.1)
    wide = [None if t is None else t.double() for t in (weight, bias)]
    wanted = F.layer_norm(reference(x + 1, decay), channels, *wide, 0.1) * F.silu(gate.double())
    assert ours.dtype == dtype
    assert error(ours, wanted) < TOLERANCE[dtype]


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (1, 3, 33, 5)])
def test_norm_and_gate_take_gradients(shape):
    x, gate, decay = halves(shape, torch.float32)
    weight, bias = torch.randn(5), torch.randn(5)
    inputs = (x, decay, gate, weight, bias)
    for tensor in inputs:
        tensor.requires_grad_()
    ours = heat_triton.conduct_norm_gate(*inputs, 1e-5)
    wanted = F.layer_norm(reference(x, decay), (5,), weight.double(), bias.double(), 1e-5) * F.silu(gate.double())
    grads = torch.autograd.grad(ours.sum(), inputs)
    for mine, true in zip(grads, torch.autograd.grad(wanted.sum(), inputs), strict=True):
        assert error(mine, true.double()) < 1e-5


def test_too_many_channels_for_the_fused_norm():
    x, gate, decay = halves((1, 2, 2, 600), torch.float32)
    assert heat_launches.row_norm_gate_launch(16, 600, 4) is None
    ours = heat_triton.conduct_norm_gate(x, decay, gate, None, None, 1e-5)
    assert error(ours, F.layer_norm(reference(x, decay), (600,)) * F.silu(gate.double())) < 1e-6


def test_a_decay_of_another_dtype():
    x, _, decay = halves((1, 6, 40, 4), torch.float16)
    # a decay this near to one would be one in float16
    decay = (1 - decay * 1e-4).float()
    assert error(heat_triton.conduct(x, decay), reference(x, decay)) < 2e-3
    decay.requires_grad_()
    (grad,) = torch.autograd.grad(heat_triton.conduct(x, decay).sum(), decay)
    assert grad.dtype == torch.float32


def test_any_strides():
    x, _, decay = halves((2, 6, 5, 4), torch.float32)
    turned = x.permute(0, 3, 2, 1).contiguous().permute(0, 3, 2, 1)
    assert turned.stride(3) != 1
    transposed = x.transpose(1, 2).contiguous().transpose(1, 2)
    for other in (turned, transposed, x.contiguous()):
        assert torch.equal(heat_triton.conduct(other, decay), heat_triton.conduct(x, decay))


@pytest.mark.parametrize("grid", [(5, 4), (5, 33)])
def test_saves_only_what_gradients_need(grid):
    x, _, decay = halves((3, *grid, 2), torch.float32)
    x.requires_grad_()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        heat_triton.conduct(x, decay)
        assert sorted(saved) == [0, decay.numel()]
        saved.clear()
        heat_triton.conduct(x, decay.requires_grad_())
    assert sorted(saved) == [decay.numel(), x.numel()]


@pytest.mark.parametrize("grid", [(5, 4), (3, 33)])
@pytest.mark.parametrize("learned", [True, False])
def test_the_core_is_registered_well(grid, learned):
    x, _, decay = halves((2, *grid, 3), torch.float32)
    x, decay = x.requires_grad_(), decay.requires_grad_(learned)
    torch.library.opcheck(torch.ops.vheatbench.conduct_heat.default, (x, decay, learned))


@pytest.mark.parametrize("grid", [(5, 4), (3, 33)])
def test_what_has_no_gradients_is_registered_well(grid):
    x, gate, decay = halves((2, *grid, 3), torch.float32)
    torch.library.opcheck(torch.ops.vheatbench.spectrum_product.default, (x.contiguous(), gate.contiguous()))
    inputs = (x, decay, gate, torch.ones(3), None, 1e-5)
    torch.library.opcheck(torch.ops.vheatbench.conduct_norm_gate.default, inputs)


class Core(torch.nn.Module):
    def forward(self, x, decay):
        if heat_triton.unsupported(x, decay) is not None:
            return x
        return heat_triton.conduct(x * 2, decay) + 1


def test_compiles_without_a_graph_break():
    compiled = torch.compile(Core(), fullgraph=True, dynamic=True, backend="aot_eager")
    for grid in ((5, 4), (3, 33)):
        x, _, decay = halves((2, *grid, 3), torch.float32)
        x.requires_grad_()
        decay.requires_grad_()
        y = compiled(x, decay)
        wanted = reference(x * 2, decay) + 1
        assert error(y, wanted) < 1e-6
        for mine, true in zip(
            torch.autograd.grad(y.sum(), (x, decay)), torch.autograd.grad(wanted.sum(), (x, decay)), strict=True
        ):
            assert error(mine, true.double()) < 1e-5


def test_exports_with_sizes_left_open():
    x, _, decay = halves((2, 5, 4, 3), torch.float32)
    height, width = torch.export.Dim("height", min=2, max=64), torch.export.Dim("width", min=2, max=64)
    sizes = {"x": {1: height, 2: width}, "decay": {0: height, 1: width}}
    program = torch.export.export(Core(), (x.contiguous(), decay), dynamic_shapes=sizes)
    assert "vheatbench.conduct_heat" in str(program.graph)
    x, _, decay = halves((2, 3, 33, 3), torch.float32)
    assert error(program.module()(x.contiguous(), decay), reference(x * 2, decay) + 1) < 1e-6


@torch.inference_mode()
def first_call_in_inference_mode(x, decay):
    return heat_triton.conduct(x, decay)


def test_a_first_call_in_inference_mode_leaves_training_possible():
    x, _, decay = halves((1, 11, 13, 2), torch.float32)  # a grid that no other test has
    first_call_in_inference_mode(x, decay)
    assert not heat_triton._cosines(11, torch.float32, x.device).is_inference()
    x.requires_grad_()
    heat_triton.conduct(x, decay).sum().backward()


@pytest.mark.parametrize("decay_shape", [(5, 4, 2), (4, 5, 3), (5, 4)])
def test_a_decay_of_another_shape_is_refused(decay_shape):
    x, gate, _ = halves((2, 5, 4, 3), torch.float32)
    with pytest.raises(ValueError, match="takes a decay"):
        heat_triton.conduct(x, torch.rand(decay_shape))
    with pytest.raises(ValueError, match="takes a decay"):
        heat_triton.conduct_norm_gate(x, torch.rand(decay_shape), gate, None, None, 1e-5)


def test_the_deployed_layer_norms_and_gates_in_the_last_kernel(monkeypatch):
    layer = HeatOperator(8, (9, 6), backend="triton").eval()
    embedding, x = torch.rand(9, 6, 8), torch.randn(2, 9, 6, 8)
    wanted = HeatOperator(8, (9, 6), backend="matmul").eval()
    wanted.load_state_dict(layer.state_dict())
    layer.deploy(embedding)
    calls = []
    kernel = heat_triton.conduct_norm_gate
    monkeypatch.setattr(heat_triton, "conduct_norm_gate", lambda *a: (calls.append(1), kernel(*a))[1])
    with torch.no_grad(), plain_operations():
        assert error(layer(x), wanted(x, embedding).double()) < 1e-5
    assert calls
    # someone listens to the norm, or asks for gradients: torch's own
    with torch.no_grad(), plain_operations():
        layer.out_norm.register_forward_hook(lambda *_: None)
        assert error(layer(x), wanted(x, embedding).double()) < 1e-5
    with plain_operations():
        layer.out_norm._forward_hooks.clear()
        layer(x)
    assert len(calls) == 1

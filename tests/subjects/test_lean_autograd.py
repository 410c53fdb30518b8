"""The training functions: plain autograd's numbers, less memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from vheatbench.subjects import lean_autograd, lean_pieces
from vheatbench.subjects.heat.cosines import cosine_matrix, dct2

EPS = 1e-5
RATIO = 4


class Plain:
    """The same formulas in plain operations."""

    @staticmethod
    def conduct(x, decay, cos_h, cos_w):
        spectrum = torch.einsum("hi,wj,bijc->bhwc", cos_h.to(x.dtype), cos_w.to(x.dtype), x)
        return torch.einsum("hi,wj,bhwc->bijc", cos_h.to(x.dtype), cos_w.to(x.dtype), spectrum * decay)

    @staticmethod
    def conv_linear(x, conv_weight, conv_bias, weight, bias):
        x = F.conv2d(x.permute(0, 3, 1, 2), conv_weight, conv_bias, padding=1, groups=x.shape[3])
        return F.linear(x.permute(0, 2, 3, 1), weight, bias).chunk(2, -1)

    @staticmethod
    def norm_conv_linear(x, norm_weight, norm_bias, eps, *rest):
        return Plain.conv_linear(F.layer_norm(x, norm_weight.shape, norm_weight, norm_bias, eps), *rest)

    @staticmethod
    def norm_gate_linear(y, gate, norm_weight, norm_bias, eps, weight, bias):
        return F.linear(F.layer_norm(y, norm_weight.shape, norm_weight, norm_bias, eps) * F.silu(gate), weight, bias)

    @staticmethod
    def mlp(x, w1, b1, w2, b2):
        return F.linear(F.gelu(F.linear(x, w1, b1)), w2, b2)

    @staticmethod
    def norm_mlp(x, norm_weight, norm_bias, eps, *rest):
        return Plain.mlp(F.layer_norm(x, norm_weight.shape, norm_weight, norm_bias, eps), *rest)


NAMES = ("conduct", "conv_linear", "norm_conv_linear", "norm_gate_linear", "mlp", "norm_mlp")


def make_arguments(name, shape, dtype=torch.float64, layout="whole", device="cpu"):
    """Arguments of a function, all but the cosines and epsilon wanting gradients."""
    batch, height, width, channels = shape
    generator = torch.Generator().manual_seed(0)

    def leaf(*size, scale=1.0):
        return (torch.randn(size, generator=generator, dtype=dtype) * scale).to(device).requires_grad_()

    def field():
        if layout == "half":
            return leaf(batch, height, width, 2 * channels).detach()[..., channels:].requires_grad_()
        if layout == "channels first":
            return leaf(batch, channels, height, width).detach().permute(0, 2, 3, 1).requires_grad_()
        return leaf(*shape)

    x, small = field(), channels**-0.5
    norm = (leaf(channels), leaf(channels), EPS)
    conv = (leaf(channels, 1, 3, 3), leaf(channels), leaf(2 * channels, channels, scale=small), leaf(2 * channels))
    hidden = RATIO * channels
    layers = (leaf(hidden, channels, scale=small), leaf(hidden), leaf(channels, hidden, scale=small), leaf(channels))
    if name == "conduct":
        cosines = (cosine_matrix(side, dtype).to(device) for side in (height, width))
        return (x, leaf(height, width, channels), *cosines)
    return {
        "conv_linear": (x, *conv),
        "norm_conv_linear": (x, *norm, *conv),
        "norm_gate_linear": (x, field(), *norm, leaf(channels, channels, scale=small), leaf(channels)),
        "mlp": (x, *layers),
        "norm_mlp": (x, *norm, *layers),
    }[name]


def run(function, arguments, autocast=False):
    """Outputs, and the gradients of all that wants one."""
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        outputs = function(*arguments)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(1)
    grads = [torch.randn(out.shape, generator=generator).to(out) for out in outputs]
    return list(outputs), list(torch.autograd.grad(outputs, wanting(arguments), grads))


def wanting(arguments):
    return [a for a in arguments if isinstance(a, torch.Tensor) and a.requires_grad]


def relative(result, reference):
    return float((result.detach().double() - reference.detach().double()).norm() / reference.detach().double().norm())


@pytest.mark.parametrize("layout", ["whole", "half", "channels first"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_functions_own(name, batch, layout):
    arguments = make_arguments(name, (batch, 3, 4, 2), layout=layout)
    assert torch.autograd.gradcheck(getattr(lean_autograd, name), arguments)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_plain_autograds_over_several_blocks(name, monkeypatch):
    monkeypatch.setattr(lean_pieces, "BLOCK_BYTES", 8192)
    shape = (4, 26, 29, 8)
    assert len(list(lean_pieces.blocks(torch.empty(4 * 26 * 29, 8, dtype=torch.float64)))) > 2
    arguments = make_arguments(name, shape)
    outputs, grads = run(getattr(lean_autograd, name), arguments)
    plain_outputs, plain_grads = run(getattr(Plain, name), arguments)
    for mine, plain in zip(outputs + grads, plain_outputs + plain_grads, strict=True):
        assert mine.shape == plain.shape
        assert relative(mine, plain) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_autocast_computes_in_bfloat16_with_gradients_near_and_of_the_parameters_dtype(name):
    arguments = make_arguments(name, (2, 10, 10, 16), torch.float32)
    outputs, grads = run(getattr(lean_autograd, name), arguments, autocast=True)
    exact_outputs, exact_grads = run(getattr(Plain, name), arguments)
    assert {out.dtype for out in outputs} == {torch.bfloat16}
    assert [grad.dtype for grad in grads] == [a.dtype for a in wanting(arguments)]
    for mine, exact in zip(outputs + grads, exact_outputs + exact_grads, strict=True):
        assert relative(mine, exact) < 1e-2


@pytest.mark.parametrize("name", ["norm_conv_linear", "norm_gate_linear", "norm_mlp"])
def test_a_large_mean_is_not_rounded_away_under_autocast(name):
    x, *rest = make_arguments(name, (1, 6, 6, 16), torch.float32)
    arguments = ((x.detach() + 1000).requires_grad_(), *rest)
    _, grads = run(getattr(lean_autograd, name), arguments, autocast=True)
    _, exact = run(getattr(Plain, name), arguments)
    assert max(relative(*pair) for pair in zip(grads, exact, strict=True)) < 1e-2


def saved_bytes(function, arguments, autocast=False):
    """Bytes of every storage kept for backward, parameters and cosines left out."""
    known = {a.untyped_storage().data_ptr() for a in arguments[1:] if isinstance(a, torch.Tensor) and a.ndim < 4}
    known |= {a.untyped_storage().data_ptr() for a in arguments if isinstance(a, torch.nn.Parameter)}
    kept = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in known and tensor.ndim >= 2:
            kept[tensor.untyped_storage().data_ptr()] = (
                tensor.untyped_storage()
            )  # held, so that no other takes its place
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        function(*arguments)
    return sum(storage.nbytes() for storage in kept.values())


# in units of the map: saved by the lean function, by plain operations, and norms' statistics (floats a token)
SAVED = {
    "conduct": (1, 1, 0),
    "conv_linear": (1, 2, 0),
    "norm_conv_linear": (1, 3, 1),
    "norm_gate_linear": (2, 5, 1),
    "mlp": (1 + RATIO, 1 + 2 * RATIO, 0),
    "norm_mlp": (1 + RATIO, 2 + 2 * RATIO, 1),
}


def as_parameters(arguments, maps):
    """The same arguments with all after the first ``maps`` as parameters."""
    rest = (
        torch.nn.Parameter(a.detach()) if isinstance(a, torch.Tensor) and a.requires_grad else a
        for a in arguments[maps:]
    )
    return (*arguments[:maps], *rest)


@pytest.mark.parametrize("name", NAMES)
def test_saved_bytes_are_those_of_the_table(name):
    shape = (2, 9, 11, 8)
    tokens, unit = 2 * 9 * 11, 4 * 2 * 9 * 11 * 8
    arguments = as_parameters(make_arguments(name, shape, torch.float32), 2 if name == "norm_gate_linear" else 1)
    lean, plain, stats = SAVED[name]
    assert saved_bytes(getattr(lean_autograd, name), arguments) == lean * unit + stats * 4 * tokens
    if name != "conduct":  # einsum's own choice of intermediates
        assert saved_bytes(getattr(Plain, name), arguments) == plain * unit + 2 * stats * 4 * tokens
    halved = saved_bytes(getattr(lean_autograd, name), arguments, autocast=True)
    assert halved == lean * unit // 2 + stats * 4 * tokens


def operator(functions, x, norm, conv, decay, cosines, out_norm, out):
    field, gate = functions.norm_conv_linear(x, *norm, *conv)
    field = functions.conduct(field, decay, *cosines)
    return functions.norm_gate_linear(field, gate, *out_norm, *out)


def test_the_operator_saves_four_units():
    batch, side, channels = 2, 9, 8
    shape = (batch, side, side, channels)
    x, *first = as_parameters(make_arguments("norm_conv_linear", shape, torch.float32), 1)
    _, decay, *cosines = as_parameters(make_arguments("conduct", shape, torch.float32), 1)
    last = as_parameters(make_arguments("norm_gate_linear", shape, torch.float32), 2)[2:]
    parameters = [*first, decay, *cosines, *last]

    def saved(functions):
        return saved_bytes(
            lambda x, *_: operator(functions, x, first[:3], first[3:], decay, cosines, last[:3], last[3:]),
            (
                x,
                *(
                    torch.nn.Parameter(p, p.requires_grad) if p.ndim < 4 else p
                    for p in parameters
                    if torch.is_tensor(p)
                ),
            ),
        )

    unit, tokens = 4 * x.numel(), batch * side * side
    assert saved(lean_autograd) == 4 * unit + 2 * 4 * tokens
    assert saved(Plain) > 9 * unit


# products of tokens x C x C in backward where only the first map wants a gradient, and where all do
PRODUCTS = {
    "norm_gate_linear": (1, 2),
    "mlp": (2 * RATIO, 4 * RATIO),
    "norm_mlp": (2 * RATIO, 4 * RATIO),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_no_product_is_computed_for_frozen_parameters(name):
    tokens, channels = 2 * 5 * 5, 16
    arguments = make_arguments(name, (2, 5, 5, channels), torch.float32)
    frozen = [a.detach() if torch.is_tensor(a) else a for a in arguments]
    for given, products in zip(([arguments[0], *frozen[1:]], arguments), PRODUCTS[name], strict=True):
        output = getattr(lean_autograd, name)(*given)
        with FlopCounterMode(display=False) as counter:
            torch.autograd.grad(output, wanting(given), torch.ones_like(output))
        sums = counter.get_total_flops() - products * 2 * tokens * channels**2
        # sums over tokens are products with ones: of the biases' gradients, none for frozen ones
        width = 0 if given is not arguments else {"norm_gate_linear": channels}.get(name, (1 + RATIO) * channels)
        assert sums == 2 * tokens * width


def test_a_frozen_decay_keeps_no_spectrum_and_a_frozen_convolution_no_work():
    x, decay, *cosines = make_arguments("conduct", (2, 5, 5, 4), torch.float32)
    assert saved_bytes(lean_autograd.conduct, (x, torch.nn.Parameter(decay.detach(), False), *cosines)) == 0
    x, *rest = make_arguments("norm_conv_linear", (2, 5, 5, 4), torch.float32)
    frozen = [a.detach() if torch.is_tensor(a) else a for a in rest]
    field, gate = lean_autograd.norm_conv_linear(x, *frozen)
    with torch.profiler.profile() as profiler:
        torch.autograd.grad((field, gate), x, (torch.ones_like(field), torch.ones_like(gate)))
    names = [event.name for event in profiler.events()]
    assert "aten::convolution_backward" in names
    assert "aten::conv2d" not in names  # nothing is made again for a gradient that nobody wants


def test_a_frozen_input_gets_no_gradient_and_the_rest_does():
    for name in NAMES:
        x, *rest = make_arguments(name, (1, 3, 3, 4))
        _, grads = run(getattr(lean_autograd, name), (x.detach(), *rest))
        _, plain = run(getattr(Plain, name), (x.detach(), *rest))
        assert all(relative(*pair) < 1e-12 for pair in zip(grads, plain, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_each_gradient_alone_is_right(name):
    arguments = make_arguments(name, (1, 3, 4, 4))
    _, everything = run(getattr(lean_autograd, name), arguments)
    for i, leaf in enumerate(wanting(arguments)):
        alone = [a if a is leaf or not torch.is_tensor(a) else a.detach() for a in arguments]
        _, (grad,) = run(getattr(lean_autograd, name), alone)
        assert relative(grad, everything[i]) < 1e-12


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_recomputes_under_autocast(name):
    arguments = make_arguments(name, (2, 4, 4, 8), torch.float32)
    function = getattr(lean_autograd, name)
    _, direct = run(function, arguments, autocast=True)
    _, again = run(lambda *a: checkpoint(function, *a, use_reentrant=False), arguments, autocast=True)
    assert all(torch.equal(*pair) for pair in zip(direct, again, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_meta_tensors_pass_and_second_derivatives_are_refused(name):
    function = getattr(lean_autograd, name)
    outputs, grads = run(function, make_arguments(name, (2, 4, 4, 8), torch.float32, device="meta"))
    assert {tensor.device.type for tensor in outputs + grads} == {"meta"}
    arguments = make_arguments(name, (1, 3, 3, 2))
    output = function(*arguments)
    output = output[0] if isinstance(output, tuple) else output
    (grad,) = torch.autograd.grad(output.square().sum(), arguments[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_half_of_a_wider_map_is_transformed_without_a_copy():
    # bfloat16 products on CPUs copy whatever is not contiguous, inside torch
    x = torch.randn(2, 6, 7, 16)[..., :8]
    cosines = cosine_matrix(6, x.dtype), cosine_matrix(7, x.dtype)
    with torch.no_grad(), torch.profiler.profile() as profiler:
        dct2(x, *cosines)
    names = {event.name for event in profiler.events()}
    assert "aten::bmm" in names
    assert not names & {"aten::copy_", "aten::clone", "aten::contiguous"}

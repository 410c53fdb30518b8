"""The plain, the fused and the lean path of a heat block compute the same, and give way to whoever listens."""

from __future__ import annotations

import contextlib
import copy
import io
import pickle

import pytest
import torch
from timm.layers import DropPath
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from vheatbench.subjects import fused, lean_autograd, onednn, products
from vheatbench.subjects.heat_stage import HeatBlock
from vheatbench.subjects.paths import path_for, plain_operations
from vheatbench.subjects.vheat import VHeat

pytestmark = pytest.mark.usefixtures("one_thread")
ARRANGEMENTS = {
    "prenorm": {},
    "prenorm_layerscale": {"layer_scale": 0.5},
    "postnorm_layerscale": {"post_norm": True, "layer_scale": 0.5},
}


def build(dtype: torch.dtype = torch.float64, **options: object) -> VHeat:
    """Two stages, every parameter random: a fold that forgets one would show."""
    torch.manual_seed(0)
    model = VHeat(img_size=64, dim=8, depths=(1, 2), num_classes=5, **options).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.ndim == 1))
    return model.eval()


@pytest.fixture(params=ARRANGEMENTS)
def model(request) -> VHeat:
    return build(**ARRANGEMENTS[request.param])


def images(dtype: torch.dtype = torch.float64, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max().clamp(min=1e-12)).item()


def gradients(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Output and gradients of every leaf that asks for one, the input included."""
    model.zero_grad()
    x = x.detach().clone().requires_grad_(x.requires_grad)
    out = model(x)
    (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum().backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    if x.grad is not None:
        found["input"] = x.grad
    return out.detach(), found


def assert_same_gradients(model: nn.Module, x: torch.Tensor, tolerance: float = 1e-11) -> dict[str, torch.Tensor]:
    """By the model's own path and by plain operations; every random number anew from the same seed."""
    torch.manual_seed(2)
    out, ours = gradients(model, x)
    torch.manual_seed(2)
    with plain_operations():
        expected, theirs = gradients(model, x)
    assert relative(out, expected) < tolerance
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert relative(ours[name], theirs[name]) < tolerance, name
    return ours


@pytest.fixture
def lean_calls(monkeypatch) -> list[str]:
    """Names of the lean functions that ran."""
    calls: list[str] = []
    for name in ("conduct", "conv_linear", "norm_conv_linear", "norm_gate_linear", "mlp", "norm_mlp"):
        function = getattr(lean_autograd, name)
        monkeypatch.setattr(lean_autograd, name, lambda *a, f=function, n=name: (calls.append(n), f(*a))[1])
    return calls


@pytest.fixture
def fused_calls(monkeypatch) -> list[int]:
    fused.fuses(images(torch.float32))  # what it tries out first does not count
    calls: list[int] = []
    function = fused.linear
    monkeypatch.setattr(fused, "linear", lambda *a, **k: (calls.append(1), function(*a, **k))[1])
    return calls


# Same result on every path


def test_lean_gradients_are_autograds(model, lean_calls):
    assert_same_gradients(model, images().requires_grad_())
    assert len(lean_calls) == 3 * 4  # blocks, times conduct, projections, gate and MLP


def test_fused_output_is_the_plain_one(model, fused_calls):
    model, x = model.float(), images(torch.float32)
    with torch.no_grad():
        with plain_operations():
            expected = model(x)
        assert not fused_calls
        assert relative(model(x), expected) < 5e-6
        assert len(fused_calls) >= 3 * 4  # blocks, times projection, out and two of the MLP
    with torch.inference_mode():
        assert relative(model(x), expected) < 5e-6


def test_without_fused_products_the_result_is_the_same(model, fused_calls, monkeypatch):
    model, x = model.float(), images(torch.float32)
    with torch.no_grad():
        expected = model(x)
        fused_calls.clear()
        monkeypatch.setattr(onednn, "works", lambda dtype: False)
        assert relative(model(x), expected) < 5e-6
    assert not fused_calls


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_agrees_on_the_fused_path(model, dtype):
    x = images(torch.float32)
    with torch.no_grad():
        expected = model.float()(x)
        assert relative(model.to(dtype)(x.to(dtype)), expected) < 0.06


def test_a_map_in_another_layout_and_batch_is_taken():
    block = build(torch.float32).stages[0].blocks[0]
    wide = torch.randn(3, 16, 16, 16)
    with torch.no_grad(), plain_operations():
        embedding = torch.rand(16, 16, 8)
        expected = block(wide[..., ::2].contiguous(), embedding)
    for x in (wide[..., ::2], wide[..., ::2].permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)):
        before = x.clone()
        for mode in (torch.no_grad, torch.enable_grad):
            with mode():
                assert relative(block(x, embedding), expected) < 5e-6
        assert torch.equal(x, before)


def test_drop_path_in_training():
    model = build(drop_path_rate=0.5).train()
    assert any(isinstance(m, DropPath) for m in model.modules())
    assert_same_gradients(model, images(batch=4))


@pytest.mark.parametrize("training", [False, True])
def test_gradient_checkpointing(training, lean_calls):
    model = build(drop_path_rate=0.3).train(training)
    torch.manual_seed(2)
    _, theirs = gradients(model, images())
    lean_calls.clear()
    model.set_grad_checkpointing()
    ours = assert_same_gradients(model, images())
    assert len(lean_calls) == 2 * 3 * 4  # once forward, once more in backward
    assert all(relative(ours[name], theirs[name]) < 1e-11 for name in theirs)


@pytest.mark.parametrize(
    "learning",
    ["op.linear.weight", "op.linear.bias", "op.dwconv.weight", "op.dwconv.bias", "op.to_k", "op.out_norm.weight",
     "op.out_linear.bias", "mlp.fc1.weight", "mlp.fc2.bias", "norm1.weight", "norm1.bias", "norm2", "ls1",
     "freq_embed", "head", "stem.conv1"],
)  # fmt: skip
@pytest.mark.parametrize("input_learns", [False, True])
def test_frozen_parts(model, learning, input_learns):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learning in name)
    if learning == "ls1" and not any("ls1" in name for name, _ in model.named_parameters()):
        pytest.skip("no layer scale in this arrangement")
    found = assert_same_gradients(model, images().requires_grad_(input_learns))
    assert found
    assert all(learning in name or name == "input" for name in found)


def test_an_input_that_learns_through_frozen_weights(model):
    assert set(assert_same_gradients(model.requires_grad_(False), images().requires_grad_())) == {"input"}


def test_frozen_weights_and_input_with_gradients_enabled(model):
    model.requires_grad_(False)
    with torch.no_grad(), plain_operations():
        expected = model(images())
    assert relative(model(images()), expected) < 1e-12


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_gradients_under_autocast_are_near_float32s(arrangement):
    model, x = build(torch.float32, **ARRANGEMENTS[arrangement]), images(torch.float32)
    expected, theirs = gradients(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        out, ours = gradients(model, x)
        with plain_operations():
            _, plain = gradients(model, x)
    assert relative(out, expected) < 0.02
    assert all(p.dtype == torch.float32 for p in ours.values())

    def error(found: dict[str, torch.Tensor]) -> torch.Tensor:
        each = [(found[name] - exact).norm() / exact.norm() for name, exact in theirs.items()]
        assert max(each) < 0.5
        return torch.stack(each).square().mean().sqrt()

    assert error(ours) < 0.06
    assert error(ours) < 1.3 * error(plain)


def test_inference_under_autocast_as_the_very_first_call(model):
    """What is tried out once must not be tried out under the caller's autocast."""
    model, x = model.float(), images(torch.float32)
    onednn.works.cache_clear()
    products.forget()
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            low = model(x)
        assert relative(low, model(x)) < 0.05
    assert fused.fuses(x) == torch.backends.mkldnn.is_available()


def test_what_is_tried_out_ignores_the_default_device():
    onednn.works.cache_clear()
    products.forget()
    x = images(torch.float32)
    with torch.device("meta"):
        assert fused.fuses(x) == torch.backends.mkldnn.is_available()


# Whoever listens is heard, and replaced layers are used


@pytest.mark.parametrize("name", [
    "norm1", "op", "op.dwconv", "op.linear", "op.out_norm", "op.out_linear", "drop_path1", "norm2", "mlp", "mlp.fc1",
    "mlp.act", "mlp.drop1", "mlp.fc2", "mlp.drop2", "drop_path2",
])  # fmt: skip
@pytest.mark.parametrize("kind", ["forward", "pre", "global"])
@pytest.mark.parametrize("grad", [False, True])
def test_every_module_of_a_block_can_be_listened_to(name, kind, grad):
    model, x = build(torch.float32), images(torch.float32)
    with torch.no_grad(), plain_operations():
        expected = model(x)
    module = model.get_submodule(f"stages.0.blocks.0.{name}")
    heard: list[tuple[torch.Tensor, ...]] = []

    def listen(module_: nn.Module, args: tuple[torch.Tensor, ...], *_: object) -> None:
        if module_ is module:
            heard.append(args)

    handle = None
    if kind == "forward":
        module.register_forward_hook(listen)
    elif kind == "pre":
        module.register_forward_pre_hook(listen)
    else:
        handle = nn.modules.module.register_module_forward_pre_hook(listen)
    try:
        with torch.set_grad_enabled(grad):
            assert relative(model(x), expected) < 5e-6
    finally:
        if handle is not None:
            handle.remove()
    assert len(heard) == 1


@pytest.mark.parametrize("name", ["norm1", "op.dwconv", "op.linear", "op.out_norm", "norm2", "mlp.fc1", "mlp.act"])
@pytest.mark.parametrize("grad", [False, True])
def test_a_forward_put_over_a_layers_own_is_called(name, grad):
    """As libraries that move weights between devices do it."""
    model, x, calls = build(torch.float32), images(torch.float32), []
    layer = model.get_submodule(f"stages.0.blocks.0.{name}")
    forward = layer.forward
    layer.forward = lambda x: (calls.append(1), forward(x))[1]  # type: ignore[method-assign]
    with torch.set_grad_enabled(grad):
        model(x)
    assert len(calls) == 1


@pytest.mark.parametrize("grad", [False, True])
def test_a_hook_on_the_operator_hears_the_normed_input_and_its_own_output(grad):
    model, x = build(torch.float32), images(torch.float32)
    block = model.stages[0].blocks[0]
    heard: dict[str, torch.Tensor] = {}
    block.norm1.register_forward_hook(lambda m, args, out: heard.update(norm=out))
    block.op.register_forward_hook(lambda m, args, out: heard.update(input=args[0], op=out))
    block.register_forward_hook(lambda m, args, out: heard.update(block=args[0]))
    block.mlp.register_forward_hook(lambda m, args, out: heard.update(mlp=out))
    with torch.set_grad_enabled(grad):
        x = model.stem(x).permute(0, 2, 3, 1)
        out = block(x, model.stages[0].freq_embed)
    assert torch.equal(heard["input"], heard["norm"])
    assert relative(x + heard["op"] + heard["mlp"], out) < 5e-6


def test_backward_hooks_run():
    model, seen = build(), []
    model.stages[0].blocks[0].op.linear.register_full_backward_hook(lambda m, i, o: seen.append(o[0].shape))
    assert_same_gradients(model, images())
    assert seen == [(2, 16, 16, 16)] * 2


class Lora(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, base.in_features, dtype=base.weight.dtype))
        self.up = nn.Parameter(torch.randn(base.out_features, 2, dtype=base.weight.dtype))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + x @ self.down.t() @ self.up.t()


@pytest.mark.parametrize(("parent", "name"), [("op", "linear"), ("op", "out_linear"), ("mlp", "fc1"), ("mlp", "fc2")])
def test_lora_equals_the_merged_weight(model, parent, name):
    merged = copy.deepcopy(model)
    block = model.stages[1].blocks[0]
    lora = Lora(getattr(getattr(block, parent), name))
    setattr(getattr(block, parent), name, lora)
    with torch.no_grad():
        linear = getattr(getattr(merged.stages[1].blocks[0], parent), name)
        linear.weight += lora.up @ lora.down
        expected = merged(images())
        assert relative(model(images()), expected) < 1e-12
        low = model.float()(images(torch.float32))
        assert relative(low, expected) < 1e-5
    found = assert_same_gradients(model.double(), images())
    assert {key.rsplit(".", 1)[1] for key in found if f"stages.1.blocks.0.{parent}.{name}." in key} == {"down", "up"}


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


@pytest.mark.parametrize("name", ["op.linear", "op.dwconv", "op.out_norm", "mlp.fc1", "norm1"])
def test_a_parametrized_weight_is_used(model, name):
    doubled = copy.deepcopy(model)
    with torch.no_grad():
        doubled.get_submodule(f"stages.0.blocks.0.{name}").weight *= 2
        expected = doubled(images())
    parametrize.register_parametrization(model.get_submodule(f"stages.0.blocks.0.{name}"), "weight", Doubled())
    assert relative(model(images()), expected) < 1e-12
    with torch.no_grad():
        assert relative(model.float()(images(torch.float32)), expected) < 1e-5


def test_weight_norm_learns(model):
    torch.nn.utils.parametrizations.weight_norm(model.stages[0].blocks[0].op.linear)
    torch.nn.utils.weight_norm(model.stages[0].blocks[0].mlp.fc1)
    found = assert_same_gradients(model, images())
    assert sum("original" in name or "weight_g" in name or "weight_v" in name for name in found) == 4


REPLACED = {
    "another GELU": ("mlp.act", lambda old: nn.GELU("tanh")),
    "another activation": ("mlp.act", lambda old: nn.ReLU()),
    "another norm": ("norm1", lambda old: nn.RMSNorm(8)),
    "a norm without parameters": ("norm2", lambda old: nn.LayerNorm(8, elementwise_affine=False)),
    "an operator's norm without parameters": ("op.out_norm", lambda old: nn.LayerNorm(8, elementwise_affine=False)),
    "a norm without bias": ("norm1", lambda old: nn.LayerNorm(8, bias=False)),
    "a linear layer without bias": ("op.linear", lambda old: nn.Linear(8, 16, bias=False)),
    "an MLP layer without bias": ("mlp.fc2", lambda old: nn.Linear(32, 8, bias=False)),
    "no norm": ("norm2", lambda old: nn.Identity()),
    "an MLP of its own": ("mlp", lambda old: nn.Linear(8, 8)),
    "dropout in the MLP": ("mlp.drop1", lambda old: nn.Dropout(0.5)),
    "a norm in the MLP": ("mlp.norm", lambda old: nn.LayerNorm(32)),
}


@pytest.mark.parametrize("what", REPLACED)
def test_replaced_layers_are_used(what):
    """As a forward written out in modules; the layer is in training mode, so that a dropout counts."""
    name, new = REPLACED[what]
    block = build().stages[0].blocks[0].train()
    parent, _, leaf = name.rpartition(".")
    torch.manual_seed(3)
    layer = new(block.get_submodule(name)).double()
    setattr(block.get_submodule(parent), leaf, layer)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 5e-6)):
        block, x, embedding = block.to(dtype), torch.randn(2, 16, 16, 8).to(dtype), torch.rand(16, 16, 8).to(dtype)
        with plain_operations(), torch.no_grad():
            torch.manual_seed(4)
            expected = x + block.op(block.norm1(x), embedding)
            expected = expected + block.mlp(block.norm2(expected))
        for grad in (False, True):
            torch.manual_seed(4)
            with torch.set_grad_enabled(grad):
                assert relative(block(x, embedding), expected) < tolerance


class Quantised(torch.Tensor):
    """A weight of another class, as quantisation libraries put them into torch's own layers."""


@pytest.mark.parametrize("grad", [False, True])
def test_a_weight_of_another_class_reaches_torch(grad, fused_calls, lean_calls):
    layer = nn.Linear(4, 4)
    x = torch.randn(2, 3, 3, 4)
    with torch.set_grad_enabled(grad):
        assert path_for(x, layer) == ("lean" if grad else "fused")
        layer.weight = nn.Parameter(layer.weight.detach().as_subclass(Quantised))
        assert path_for(x, layer) == "plain"
        assert path_for(x.as_subclass(Quantised), nn.Linear(4, 4)) == "plain"


def test_a_flop_counter_sees_every_product():
    model, x = build(torch.float32), images(torch.float32)
    counts = []
    for grad in (False, True):
        with torch.set_grad_enabled(grad), FlopCounterMode(display=False) as counter:
            model(x)
        counts.append(counter.get_total_flops())
    meta = copy.deepcopy(model).to("meta")
    with FlopCounterMode(display=False) as counter:
        meta(x.to("meta"))
    assert counts == [counter.get_total_flops()] * 2


# Derivatives beyond the first, transforms, tracers


def test_second_derivatives_say_what_to_do_and_work_within_plain_operations(model):
    def penalty(x: torch.Tensor) -> torch.Tensor:
        (first,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return first.square().sum()

    x = images().requires_grad_()
    with pytest.raises(RuntimeError, match="once_differentiable"):
        penalty(x).backward()
    with plain_operations():
        (second,) = torch.autograd.grad(penalty(x), x)
        step = 1e-6 * torch.randn_like(x)
        numeric = (penalty(x + step) - penalty(x - step)) / 2
    assert (second * step).sum().item() == pytest.approx(numeric.item(), rel=1e-4)


def test_plain_operations_ends_with_its_block():
    layer, x = nn.Linear(4, 4), torch.randn(1, 2, 2, 4)
    with plain_operations():
        with plain_operations():
            pass
        assert path_for(x, layer) == "plain"
    with contextlib.suppress(KeyError), plain_operations():
        raise KeyError
    assert path_for(x, layer) == "lean"


def test_functional_call_and_torch_func_grad(model):
    x = images()
    weights = {name: p.detach() for name, p in model.named_parameters()}
    with torch.no_grad():
        assert relative(functional_call(model, {k: 2 * w for k, w in weights.items()}, (x,)), model(x)) > 1e-3
    ours = torch.func.grad(lambda w: functional_call(model, w, (x,)).sum())(weights)
    model(x).sum().backward()
    for name, parameter in model.named_parameters():
        assert relative(ours[name], parameter.grad) < 1e-10, name


@pytest.mark.parametrize("grad", [False, True])
def test_forward_mode_derivatives(model, grad):
    x, direction = images(), torch.randn_like(images())
    with torch.no_grad():
        numeric = (model(x + 1e-6 * direction) - model(x - 1e-6 * direction)) / 2e-6
    low = copy.deepcopy(model).float()
    with torch.set_grad_enabled(grad):
        _, tangent = torch.func.jvp(model, (x,), (direction,))
        assert relative(tangent, numeric) < 1e-5
        with forward_ad.dual_level():
            out = low(forward_ad.make_dual(x.float(), direction.float()))
            assert relative(forward_ad.unpack_dual(out).tangent, numeric) < 1e-3


@pytest.mark.parametrize("grad", [False, True])
def test_vmap_over_a_block(grad):
    block, maps, embedding = build().stages[0].blocks[0], torch.randn(3, 1, 16, 16, 8).double(), torch.rand(16, 16, 8)
    embedding = embedding.double()
    with torch.set_grad_enabled(grad):
        mapped = torch.vmap(lambda x: block(x, embedding))(maps)
        assert relative(mapped, torch.stack([block(x, embedding) for x in maps])) < 1e-12


def test_vmap_over_a_whole_model_stops_at_torchs_layouts():
    """The stem asks for channels last, which torch cannot tell within vmap."""
    model = build()
    with pytest.raises(RuntimeError, match="memory_format"):
        torch.vmap(lambda x: model(x[None]))(images())


def test_what_transforms_and_fake_tensors_leave_behind_harms_no_later_call():
    """On a grid seen for the first time, its cosine matrices are made; wrapped ones must not be kept."""
    model = build(torch.float32)
    for transform, size in (("fake", (32, 96)), ("grad", (32, 128)), ("jvp", (32, 160))):
        x = torch.randn(1, 3, *size)
        if transform == "fake":
            with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
                assert model(mode.from_tensor(x)).shape == (1, 5)
        elif transform == "grad":
            torch.func.grad(lambda x: model(x).sum())(x)
        else:
            torch.func.jvp(model, (x,), (x,))
        with torch.no_grad():
            expected = model(x)
        out, _ = gradients(model, x)
        assert type(expected) is type(out) is torch.Tensor
        assert relative(out, expected) < 5e-6


@pytest.mark.parametrize("deployed", [False, True])
def test_torchscript_tracing_is_plain(deployed):
    model, x = build(torch.float32), images(torch.float32)
    model = model.deploy() if deployed else model
    with torch.no_grad():
        traced = torch.jit.trace(model, x)
        assert "mkldnn" not in str(traced.inlined_graph)
        assert relative(traced(x), model(x)) < 5e-6


# The deploy form


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
def test_the_deploy_form_is_exact(model, fold, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
    deployed = model.deploy(size, fold=fold)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            assert relative(deployed(x), expected) < 1e-12
    with plain_operations(), torch.no_grad():
        assert relative(deployed(x), expected) < 1e-12


@pytest.mark.parametrize("fold", [False, True])
def test_gradients_of_the_deploy_form(model, fold):
    """The input's are the training form's (saliency maps, effective receptive fields)."""
    _, expected = gradients(model, images().requires_grad_())
    found = assert_same_gradients(model.deploy(fold=fold), images().requires_grad_())
    assert relative(found["input"], expected["input"]) < 1e-11


@pytest.mark.parametrize("fold", [False, True])
def test_the_deploy_form_in_float32_fused_and_with_gradients(model, fold, fused_calls):
    with torch.no_grad():
        expected = model(images())
    deployed, x = model.float().deploy(fold=fold), images(torch.float32)
    with torch.no_grad():
        assert relative(deployed(x), expected) < 1e-5
    assert len(fused_calls) >= 3 * 4
    assert relative(deployed(x), expected) < 1e-5


@pytest.mark.parametrize("fold", [False, True])
def test_state_dict_round_trip_of_the_deploy_form(model, fold):
    deployed = copy.deepcopy(model).deploy(fold=fold)
    fresh = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.normal_()
    fresh.deploy(fold=fold)
    with torch.no_grad():
        assert not torch.equal(fresh(images()), deployed(images()))
        fresh.load_state_dict(deployed.state_dict())
        assert torch.equal(fresh(images()), deployed(images()))


@pytest.mark.parametrize("fold", [False, True])
def test_copies_and_pickles_of_the_deploy_form(model, fold):
    deployed = model.float().deploy(fold=fold)
    x = images(torch.float32)
    file = io.BytesIO()
    torch.save(deployed, file)
    file.seek(0)
    copies = copy.deepcopy(deployed), pickle.loads(pickle.dumps(deployed)), torch.load(file, weights_only=False)
    with torch.no_grad():
        expected = deployed(x)
        for other in copies:
            assert torch.equal(other(x), expected)
            for p in other.parameters():
                p.zero_()
        assert torch.equal(deployed(x), expected)


def test_folding_drops_exactly_the_folded_vectors(model):
    def count(m: nn.Module) -> int:
        return sum(p.numel() for p in m.parameters())

    kept, folded = copy.deepcopy(model).deploy(fold=False), copy.deepcopy(model).deploy(fold=True)
    vectors = 0
    for block in (m for m in model.modules() if isinstance(m, HeatBlock)):
        dim = block.norm1.weight.numel()
        vectors += dim  # bias of the depthwise convolution
        vectors += sum(p.numel() for ls in (block.ls1, block.ls2) for p in ls.parameters())
        vectors += 0 if block.post_norm else 2 * dim  # affine part of the norm before the MLP
    assert vectors > 0
    assert count(kept) - count(folded) == vectors

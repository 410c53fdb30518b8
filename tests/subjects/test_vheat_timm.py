"""What timm's own tests/test_models.py asks of a registered model, for vHeat."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.models import get_notrace_functions, get_notrace_modules
from timm.optim import param_groups_layer_decay
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import vheatbench.subjects  # noqa: F401  (registers the models)

NAMES = ("vheat_tiny", "vheat_small", "vheat_base")


@pytest.fixture
def image() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 64, 64)


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_vheat", num_classes=7)


def test_registered():
    assert set(NAMES) <= set(timm.list_models("vheat*"))
    assert timm.is_model("vheat_tiny")


@pytest.mark.parametrize("name", NAMES)
def test_forward_of_every_size_on_meta(name):
    with torch.device("meta"):
        model = timm.create_model(name, img_size=(64, 96), num_classes=5)
        assert model(torch.empty(2, 3, 64, 96)).shape == (2, 5)
        assert model.forward_features(torch.empty(1, 3, 64, 96)).shape == (1, model.num_features, 2, 3)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_forward_and_backward(model, image, checkpointing):
    model.set_grad_checkpointing(checkpointing)
    model.train()
    output = model(image)
    assert output.shape == (2, 7)
    assert torch.isfinite(output).all()
    output.mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_grad_checkpointing_changes_no_gradient(model, image):
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(checkpointing)
        model(image).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("name", [*NAMES, "test_vheat"])
def test_default_cfg(name):
    with torch.device("meta"):
        model = timm.create_model(name).eval()
    cfg = model.default_cfg
    size, pool = cfg["input_size"], cfg["pool_size"]
    assert all(cfg[key] for key in ("mean", "std", "interpolation", "crop_pct"))
    assert cfg["classifier"] + ".weight" in model.state_dict()
    assert cfg["first_conv"] + ".weight" in model.state_dict()
    x = torch.empty(2, *size, device="meta")
    features = model.forward_features(x)
    assert features.shape[-2:] == pool
    model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features)
    model.reset_classifier(0, "")
    assert model(x).shape == features.shape
    with torch.device("meta"):
        unpooled = timm.create_model(name, num_classes=0, global_pool="")
    assert unpooled(x).shape == features.shape


def test_head_parts(model, image):
    model.eval()
    features = model.forward_features(image)
    assert torch.equal(model.forward_head(features), model(image))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
    model.reset_classifier(3)
    assert model(image).shape == (2, 3)
    assert model.get_classifier().out_features == 3


@pytest.mark.parametrize("pool", ["avg", "max", "avgmax", "catavgmax"])
def test_global_pools(image, pool):
    model = timm.create_model("test_vheat", num_classes=5, global_pool=pool, in_chans=1)
    assert model(image[:, :1]).shape == (2, 5)


@pytest.mark.parametrize("kind", [None, "list", "hook", "getter", "fx"])
def test_features(image, kind):
    extra = {"feature_cls": kind} if kind else {}
    model = timm.create_model("test_vheat", features_only=True, out_indices=(1, 3), **extra)
    outputs = model(image)
    assert model.feature_info.reduction() == [8, 32]
    for output, channels, reduction in zip(
        outputs, model.feature_info.channels(), model.feature_info.reduction(), strict=True
    ):
        assert output.shape == (2, channels, 64 // reduction, 64 // reduction)


def test_features_equal_intermediates(image):
    torch.manual_seed(0)
    features = timm.create_model("test_vheat", features_only=True).eval()(image)
    torch.manual_seed(0)
    model = timm.create_model("test_vheat").eval()
    final, intermediates = model.forward_intermediates(image)
    assert len(features) == len(intermediates) == 4
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(features, intermediates, strict=True))
    assert torch.equal(final, model.forward_features(image))
    assert torch.equal(model.forward_intermediates(image, norm=True)[1][-1], final)
    early = model.forward_intermediates(image, indices=[0, 1], stop_early=True, intermediates_only=True)
    assert [t.shape[-1] for t in early] == [16, 8]


def test_prune_intermediate_layers(image):
    model = timm.create_model("test_vheat")
    assert model.prune_intermediate_layers([1], prune_norm=True) == [1]
    assert len(model.stages) == 2
    assert model.forward_intermediates(image, indices=[1], intermediates_only=True)[0].shape[1] == 32


def test_fx_graph(model, image):
    model.eval()
    from timm.models import create_feature_extractor

    extractor = create_feature_extractor(model, ["head"])
    assert torch.allclose(extractor(image)["head"], model(image), atol=1e-6)


def as_timm_traces(model: torch.nn.Module) -> torch.nn.Module:
    """The graph of a model's output as timm's own tests make it."""
    leaves = {"leaf_modules": get_notrace_modules(), "autowrap_functions": get_notrace_functions()}
    kwargs = {**leaves, "param_shapes_constant": True}
    train, evaluate = get_graph_node_names(model, tracer_kwargs=kwargs)
    nodes = {"train_return_nodes": train[-1:], "eval_return_nodes": evaluate[-1:]}
    return create_feature_extractor(model, tracer_kwargs=kwargs, **nodes)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize(
    ("name", "small"),
    [("test_vheat", {}), *((name, {"depths": (1, 1, 2, 1), "img_size": 64}) for name in NAMES)],
)
def test_forward_of_the_fx_graph_is_equal_to_the_bit(name, small, mode, image):
    torch.manual_seed(0)
    model = timm.create_model(name, **small).eval()
    with mode():
        (output,) = as_timm_traces(model)(image).values()
        assert torch.equal(output, model(image))
    model.deploy(64)
    with mode():
        (output,) = as_timm_traces(model)(image).values()
        assert torch.equal(output, model(image))


def test_backward_of_the_fx_graph(model, image):
    """As timm's, and to the bit."""
    model.train()
    graph = as_timm_traces(model).train()
    gradients = []
    for one in (model, graph):
        one.zero_grad()
        output = one(image)
        (output if isinstance(output, torch.Tensor) else next(iter(output.values()))).mean().backward()
        gradients.append([p.grad.clone() for p in one.parameters()])
    assert len(gradients[0]) == len(gradients[1])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_torchscript_is_refused_in_one_line_and_what_to_take_instead_works(image):
    model = timm.create_model("test_vheat", depths=(1, 1)).eval()
    for one in (model, torch.nn.Sequential(model), as_timm_traces(model)):
        with pytest.raises(NotImplementedError, match=r"vHeat cannot be scripted.*torch\.export") as caught:
            torch.jit.script(one)
        assert "\n" not in str(caught.value)
    with torch.no_grad():
        assert torch.allclose(torch.jit.trace(model, image)(image), model(image), atol=1e-6)
        assert torch.allclose(torch.export.export(model, (image,)).module()(image), model(image), atol=1e-6)


def test_layer_decay_groups_cover_every_parameter(model):
    groups = param_groups_layer_decay(model, layer_decay=0.7)
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))
    depth_of = {}
    for group in groups:
        for parameter in group["params"]:
            depth_of[id(parameter)] = group["lr_scale"]
    names = {name: depth_of[id(p)] for name, p in model.named_parameters()}
    assert names["stem.conv1.conv.weight"] < names["stages.3.blocks.0.op.linear.weight"] <= names["head.fc.weight"]


def test_drop_path_grows_linearly_over_blocks():
    model = timm.create_model("vheat_tiny", drop_path_rate=0.22)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.02 * i for i in range(12)])


@pytest.mark.parametrize("size", [(65, 64), (64, 48), (16, 64)])
def test_sizes_that_have_no_exact_grid_are_refused(model, size):
    with pytest.raises(ValueError, match=f"divisible by 32, not {size[0]}x{size[1]}: resize to "):
        model(torch.randn(1, 3, *size))
    with pytest.raises(ValueError, match="divisible by 32"):
        timm.create_model("test_vheat", img_size=size)


def test_compiles_without_a_graph_break(model, image):
    model.eval().deploy()
    explanation = torch._dynamo.explain(model)(image)
    assert explanation.graph_break_count == 0


def test_unknown_resizing_rule_is_refused():
    with pytest.raises(ValueError, match="'bicubic' or 'zeropad'"):
        timm.create_model("test_vheat", freq_resize="nearest")


def test_bfloat16_runs(model, image):
    output = model.eval().bfloat16()(image.bfloat16())
    assert output.dtype == torch.bfloat16
    assert torch.isfinite(output).all()

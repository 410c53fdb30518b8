"""From names to models: aliases, timm's models, the user's own; the form and the facts of what is built."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import timm
import torch
from timm.models import is_model
from torch import nn

from vheatbench.case import Case
from vheatbench.errors import UserError
from vheatbench.measure.flops import count_flops
from vheatbench.subjects.catalog import ALIASES, Built, build, find_subject, list_subjects
from vheatbench.subjects.fused import fuses

pytestmark = pytest.mark.usefixtures("one_thread")


def built(subject: str, size: int = 224, device: str = "meta", **axes) -> Built:
    return build(Case(subject=subject, resolution=(size, size), **axes), device)


def run(it: Built) -> torch.Tensor:
    images = torch.randn(2, *it.input_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return it.model.eval()(images)


# names


@pytest.mark.parametrize("alias", ALIASES)
def test_every_alias_leads_to_a_model(alias: str) -> None:
    subject = find_subject(alias)
    assert is_model(subject.full_name)
    assert subject.name == alias
    assert subject.default_size is not None
    assert subject.family.startswith(("timm.models.", "vheatbench.subjects."))
    assert find_subject(alias.upper()).full_name == subject.full_name


def test_aliases_and_full_names_are_the_same_model() -> None:
    alias, full = find_subject("Swin-T"), find_subject("swin_tiny_patch4_window7_224")
    assert (alias.full_name, alias.default_size, alias.family) == (full.full_name, (224, 224), full.family)
    assert find_subject("swinv2-t").default_size == (256, 256)
    assert find_subject("vheat-t").family == "vheatbench.subjects.vheat"
    assert len(set(ALIASES.values())) == len(ALIASES), "list_subjects shows one alias a model"


def test_a_pretrained_tag_is_kept_and_no_weights_are_loaded() -> None:
    subject = find_subject("vit_base_patch16_224.augreg_in21k_ft_in1k")
    assert subject.full_name == "vit_base_patch16_224.augreg_in21k_ft_in1k"
    assert built("test_vit.r160_in1k", 160).facts["weights"] == "random, seed 0"


@pytest.mark.parametrize(
    ("wrong", "near"), [("vheat-tt", "vheat-t"), ("vheat_tny", "vheat_tiny"), ("swin-tiny", "swin-"), ("VIT-X", "vit-")]
)
def test_an_unknown_name_is_a_user_error_with_near_matches(wrong: str, near: str) -> None:
    with pytest.raises(UserError, match=rf"unknown model '{wrong}' \(did you mean .*{near}.*\); 'vheatbench models"):
        find_subject(wrong)


@pytest.mark.parametrize("wrong", ["qqqqqqqqqq", "", ".", "a" * 1000, "x\ny"])
def test_nothing_is_suggested_for_nonsense(wrong: str) -> None:
    with pytest.raises(UserError) as caught:
        find_subject(wrong)
    assert "did you mean" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_list_subjects() -> None:
    assert ("vheat_tiny", "vheat-t") in list_subjects("vheat*")
    assert {"vheat_tiny", "vheat_small", "vheat_base"} <= {name for name, _ in list_subjects("vheat_*")}
    assert all(name.startswith("vheat_") for name, _ in list_subjects("vheat_*"))
    assert list_subjects("swin-t") == [("swin_tiny_patch4_window7_224", "swin-t")], "an alias finds its model"
    assert ("vheat_base", "vheat-b") in list_subjects("VHEAT-B")
    assert list_subjects("dinov3_qkvb") == list_subjects("*dinov3_qkvb*") != [], "a plain word is looked for anywhere"
    assert list_subjects("no_such*") == []
    assert list_subjects("maskrcnn:swin-t") == [("maskrcnn:swin_tiny_patch4_window7_224", "maskrcnn:swin-t")]
    assert list_subjects("maskrcnn*") == list_subjects("maskrcnn:")
    assert ("upernet:vheat_base", "upernet:vheat-b") in list_subjects("upernet:vheat*")
    bare = [name for name, _ in list_subjects("upernet")]
    assert "upernet:resnet50" in bare
    assert not any("op/" in name for name in bare)
    assert len(list_subjects()) > 1000
    assert dict(list_subjects())["resnet50"] == ""


# the user's own models

OWN = """
    import torch
    from torch import nn
    from timm.models import register_model

    class Tiny(nn.Module):
        def __init__(self, width=4, channels=3):
            super().__init__()
            self.conv = nn.Conv2d(channels, width, 3)
            self.norm = nn.BatchNorm2d(width)

        def forward(self, x):
            return self.norm(self.conv(x)).mean((2, 3))

    def tiny(width=4):
        return Tiny(width)

    def number():
        return 3

    answer = 42

    @register_model
    def {registered}(pretrained=False, **kwargs):
        return Tiny(8)

    class OldRepVGG(Tiny):
        # RepVGG's own code: a flag of this name, and parts that can switch
        deploy = False

        def __init__(self):
            super().__init__()
            self.part = Switch()

        def forward(self, x):
            return self.part(super().forward(x))

    class Switch(nn.Module):
        switched = False

        def switch_to_deploy(self):
            self.switched = True

        def forward(self, x):
            return x

    class InPlace(Tiny):
        def deploy(self):
            self.norm = nn.Identity()

    class Computing(Tiny):
        def __init__(self):
            super().__init__()
            self.rates = [rate.item() for rate in torch.linspace(0, 1, 3)]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Writes a module of a fresh name into the working directory and returns its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    made = []

    def write(text: str = OWN) -> str:
        name = f"own_{abs(hash(str(tmp_path)))}_{len(made)}"
        lines = text.replace("{registered}", f"registered_{name}").splitlines()
        Path(f"{name}.py").write_text("\n".join(line[4:] for line in lines))
        made.append(name)
        return name

    yield write
    for name in made:
        sys.modules.pop(name, None)


def test_own_function_class_and_registered_model(own) -> None:
    name = own()
    for attribute, width in (("tiny", 4), ("Tiny", 4), (f"registered_{name}", 8)):
        it = built(f"{name}:{attribute}", 32, "cpu")
        assert run(it).shape == (2, width)
        assert it.facts["family"] == name
        assert it.facts["form"] == "as trained (no deploy form)"
    assert run(built(f"{name}:Tiny", 32, "cpu", options={"width": 6})).shape == (2, 6)
    assert built(f"{name}:Tiny", 32, options={"channels": 5}).input_shape == (5, 32, 32)


def test_own_module_in_a_package(own) -> None:
    name = own()
    package = Path(f"pkg_{name}")
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(Path(f"{name}.py").read_text())
    assert find_subject(f"pkg_{name}.nets:tiny").family == f"pkg_{name}.nets"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("    import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("    def f(:", "SyntaxError: invalid syntax"),
        ("    raise RuntimeError('needs a licence\\nkey')", "RuntimeError: needs a licence"),
        ("    1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_user_error_on_one_line(own, text: str, reason: str) -> None:
    name = own(text)
    with pytest.raises(UserError) as caught:
        find_subject(f"{name}:tiny")
    assert str(caught.value).startswith(f"model '{name}:tiny': cannot import '{name}' ({reason}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["no_such_module_here:f", ":f", "..:f", "a b:f", "os.path.:f", "a:b:c"])
def test_no_such_module(own, name: str) -> None:
    with pytest.raises(UserError, match="cannot import"):
        find_subject(name)


def test_not_callable_or_no_module(own) -> None:
    name = own()
    for attribute in ("answer", "missing", ""):
        with pytest.raises(UserError, match=f"has no function or class '{attribute}'$"):
            find_subject(f"{name}:{attribute}")
    with pytest.raises(UserError, match="number returned a int, not a torch module"):
        built(f"{name}:number", 32)
    with pytest.raises(UserError, match=r"cannot be built with.*depth.*unexpected keyword"):
        built(f"{name}:Tiny", 32, options={"depth": 3})


def test_own_models_that_compute_while_they_are_built_can_be_counted(own) -> None:
    it = built(f"{own()}:Computing", 32, "meta")
    assert {p.device.type for p in it.model.parameters()} == {"meta"}
    assert count_flops(lambda: it.model(torch.empty(1, 3, 32, 32, device="meta"))).macs == 30 * 30 * 27 * 4
    assert "not compared" in it.warnings[0]


def test_own_deploy_forms(own) -> None:
    name = own()
    in_place = built(f"{name}:InPlace", 32)
    assert in_place.facts["form"] == "deploy form"
    assert isinstance(in_place.model.norm, nn.Identity)
    old = built(f"{name}:OldRepVGG", 32)
    assert old.facts["form"] == "deploy form (reparameterised)"
    assert old.model.part.switched
    assert not built(f"{name}:OldRepVGG", 32, mode="forward").model.part.switched


# forms


def test_vheat_forms() -> None:
    infer, forward, train = (built("test_vheat", 64, "cpu", mode=mode) for mode in ("infer", "forward", "train"))
    assert infer.model.deployed_for == (64, 64)
    assert forward.model.deployed_for is train.model.deployed_for is None
    assert [it.facts["form"] for it in (infer, forward, train)] == ["deploy form", "training form", "training form"]
    assert [it.model.training for it in (infer, forward, train)] == [False, False, True]
    assert torch.allclose(run(infer), run(forward), atol=1e-5), "the same function with the same weights"


def parameters(it: Built) -> int:
    return sum(p.numel() for p in it.model.parameters())


@pytest.mark.parametrize(("name", "size"), [("mobileone_s0", 64), ("fastvit_t8", 64)])
def test_reparameterisable_models_of_timm(name: str, size: int) -> None:
    infer = built(name, size, "cpu", mode="infer")
    forward = built(name, size, "cpu", mode="forward")
    on_meta = built(name, size, "meta", mode="infer")
    assert infer.facts["form"] == on_meta.facts["form"] == "deploy form (reparameterised)"
    assert forward.facts["form"] == "training form"
    assert parameters(infer) < parameters(forward)
    expected = run(forward)  # far from 1: untrained batch norms let activations grow
    assert (run(infer) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert {p.device.type for p in on_meta.model.parameters()} == {"meta"}
    assert parameters(on_meta) == parameters(infer)
    counts = [
        count_flops(lambda it=it, device=device: it.model(torch.empty(1, 3, size, size, device=device))).flops
        for it, device in ((infer, "cpu"), (on_meta, "meta"))
    ]
    assert counts[0] == counts[1]


def test_a_model_without_deploy_form_is_the_same_in_every_mode() -> None:
    infer, forward = built("test_vit", 64, "cpu"), built("test_vit", 64, "cpu", mode="forward")
    assert infer.facts["form"] == "as trained (no deploy form)"
    assert torch.equal(run(infer), run(forward))


def test_weights_are_the_same_on_every_build() -> None:
    torch.manual_seed(99)
    first = built("test_vheat", 64, "cpu").model.state_dict()
    second = built("test_vheat", 64, "cpu").model.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


# attention


def fused_flags(it: Built) -> set[bool]:
    return {module.fused_attn for module in it.model.modules() if hasattr(module, "fused_attn")}


@pytest.mark.parametrize("name", ["swin-t", "vit-t", "deit-t", "dinov3-s", "davit_tiny", "beit_base_patch16_224"])
def test_one_attention_policy_for_every_model(name: str) -> None:
    """By default timm fuses the attention of ViT and not that of Swin: a comparison of kernels, not of models."""
    for fused in (False, True, False):
        it = built(name, fused_attention=fused)
        assert fused_flags(it) == {fused}
        flags = sum(hasattr(module, "fused_attn") for module in it.model.modules())
        assert it.facts["attention"] == (f"fused in all {flags} modules" if fused else f"fused in 0 of {flags} modules")


def test_the_policy_reaches_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or real(*a, **k)
    )
    narrow = {"embed_dim": 24, "num_heads": (1, 2, 4, 8)}
    outputs = {}
    for fused in (True, False):
        it = built("swin-t", 64, "cpu", fused_attention=fused, options=narrow)
        calls.clear()
        outputs[fused] = run(it)
        assert len(calls) == (12 if fused else 0)
    assert torch.allclose(outputs[True], outputs[False], atol=1e-5)


def test_no_attention_is_said() -> None:
    assert built("test_vheat", 64).facts["attention"] == "no attention module of timm's"


# facts


def test_facts() -> None:
    it = built("vit-t", 320, options={"num_classes": 10, "in_chans": 1})
    assert it.facts == {
        "name": "vit_tiny_patch16_224",
        "family": "timm.models.vision_transformer",
        "form": "as trained (no deploy form)",
        "weights": "random, seed 0",
        "arguments": {"num_classes": 10, "in_chans": 1, "img_size": [320, 320]},
        "input": {"how": "img_size=(320, 320)", "changed": {"pos_embed": "1x197x192 -> 1x401x192"}},
        "attention": "fused in all 12 modules",
    }
    assert it.input_shape == (1, 320, 320)
    assert it.warnings == []


def test_options_that_a_model_does_not_take() -> None:
    with pytest.raises(UserError, match=r"'vit-t' cannot be built with .*'windows': 7.*unexpected keyword"):
        built("vit-t", options={"windows": 7})


def test_options_change_the_model_and_are_not_mixed_up_between_builds() -> None:
    assert built("swin-t", 448, options={"window_size": 14}).model.layers[0].blocks[0].window_size == (14, 14)
    assert built("swin-t", 448).model.layers[0].blocks[0].window_size == (7, 7)


def test_building_on_meta_allocates_nothing() -> None:
    it = built("vheat-b", 1024)
    tensors = [*it.model.parameters(), *it.model.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert timm.layers.use_fused_attn()


@pytest.mark.parametrize(
    ("subject", "changes", "warned"),
    [
        ("test_vheat", {}, True),
        ("test_vheat", {"mode": "train"}, True),
        ("test_vheat", {"dtype": "bfloat16"}, True),
        ("test_vheat", {"compile": True}, False),
        ("test_vheat", {"device": "cuda"}, False),
        ("test_vheat_official", {}, False),
        ("test_vit", {"resolution": 160}, False),
        ("op/heat", {"resolution": 8, "part": "layer"}, True),
        ("op/heat", {"resolution": 8, "part": "core"}, False),
        ("op/attention", {"resolution": 8, "part": "layer"}, False),
    ],
)
def test_products_that_other_models_do_not_have_are_said(subject: str, changes: dict, warned: bool) -> None:
    case = Case(**{"subject": subject, "resolution": 64, **changes})
    # what oneDNN multiplies in hangs on the processor: bfloat16 asks for AVX-512 or AMX
    here = fuses(torch.zeros(1, dtype=getattr(torch, case.dtype)))
    assert any("oneDNN" in text for text in build(case).warnings) == (warned and here)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_that_this_processor_does_not_have_are_not_said(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vheatbench.subjects.onednn.works", lambda known: known == torch.float32)
    built = build(Case(subject="test_vheat", resolution=64, dtype=dtype))
    assert any("oneDNN" in text for text in built.warnings) == (dtype == "float32")


@pytest.mark.parametrize("subject", ["test_vheat", "test_vheat_official"])
def test_both_formulations_are_deployed_for_the_size_that_is_measured(subject: str) -> None:
    built = build(Case(subject=subject, resolution=(96, 128)))
    assert built.model.deployed_for == (96, 128)

"""torch.compile without graph breaks, one graph for many resolutions, and torch.export with dynamic sizes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.export import Dim, export

from vheatbench.subjects.heat_operator import HeatOperator
from vheatbench.subjects.vheat import VHeat

pytestmark = pytest.mark.usefixtures("one_thread")
ARRANGEMENTS = {
    "prenorm": {},
    "postnorm_layerscale": {"post_norm": True, "layer_scale": 0.5},
}


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def build(depths: tuple[int, ...] = (1, 1), **options: object) -> VHeat:
    torch.manual_seed(0)
    model = VHeat(img_size=64, dim=8, depths=depths, num_classes=5, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3 + (parameter.ndim == 1))
    return model


def image(height: int = 64, width: int = 64, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height + width))


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12)).item()


class Graphs:
    """A compiler backend that counts the graphs it gets, and runs them by ``aot_eager``."""

    def __init__(self) -> None:
        self.graphs: list[torch.fx.GraphModule] = []

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        self.graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)

    def functions(self) -> set[str]:
        nodes = (node for graph in self.graphs for node in graph.graph.nodes if node.op == "call_function")
        return {node.target.__name__ for node in nodes}


@pytest.fixture
def graphs() -> Graphs:
    return Graphs()


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_the_training_form_is_one_graph_forward_and_backward(arrangement, graphs):
    model = build(**ARRANGEMENTS[arrangement])
    x = image().requires_grad_()
    found = []
    for call in (model, torch.compile(model, backend=graphs, fullgraph=True)):
        model.zero_grad()
        x.grad = None
        out = call(x)
        out.square().sum().backward()
        found.append([out.detach(), x.grad, *(p.grad for p in model.parameters())])
    assert len(graphs.graphs) == 1
    assert all(relative(ours, theirs) < 1e-4 for ours, theirs in zip(found[1], found[0], strict=True))


def test_training_mode_with_drop_path_is_one_graph(graphs):
    model = build(drop_path_rate=0.5).train()
    torch.compile(model, backend=graphs, fullgraph=True)(image()).sum().backward()
    assert len(graphs.graphs) == 1
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_the_deploy_form_is_one_graph(arrangement, fold, grad, graphs):
    model = build((1,), **ARRANGEMENTS[arrangement]).deploy(fold=fold)
    with torch.set_grad_enabled(grad):
        compiled = torch.compile(model, backend=graphs, fullgraph=True)
        assert relative(compiled(image()), model(image())) < 1e-5
        assert relative(compiled(image()), model(image())) < 1e-5
    assert len(graphs.graphs) == 1


@pytest.mark.parametrize("backend", ["official", "matmul", "symmetric", "fft"])
def test_every_backend_of_the_operator_is_one_graph(backend, graphs):
    operator, embedding = HeatOperator(4, (6, 5), backend), torch.rand(6, 5, 4)
    x = torch.randn(2, 6, 5, 4, requires_grad=True)
    compiled = torch.compile(operator, backend=graphs, fullgraph=True)
    ours, theirs = compiled(x, embedding), operator(x, embedding)
    assert relative(ours, theirs) < 1e-5
    gradients = [torch.autograd.grad(out.square().sum(), x)[0] for out in (ours, theirs)]
    assert relative(*gradients) < 1e-4
    assert len(graphs.graphs) == 1


@pytest.fixture
def one_compilation() -> Iterator[None]:
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield


@pytest.mark.usefixtures("one_compilation")
@pytest.mark.parametrize("resize", ["bicubic", "zeropad"])
def test_one_compilation_for_every_resolution(resize):
    """The size that the model was built for among them, and sizes below and above it.

    A wide image comes first: from a square one torch concludes that heights equal widths (its duck sizing).
    """
    model = build((1,), freq_resize=resize)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size in ((64, 128), (64, 64), (96, 96), (128, 64), (32, 160)):
            assert relative(compiled(image(*size)), model(image(*size))) < 1e-5


@pytest.mark.usefixtures("one_compilation")
def test_training_takes_one_compilation_for_every_resolution():
    model = build((1,))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    for size in ((64, 128), (64, 64), (96, 96)):
        gradients = []
        for call in (compiled, model):
            model.zero_grad()
            call(image(*size)).square().sum().backward()
            gradients.append([p.grad.clone() for p in model.parameters()])
        assert all(relative(ours, theirs) < 1e-4 for ours, theirs in zip(*gradients, strict=True))


@pytest.mark.usefixtures("one_compilation")
def test_a_square_image_first_serves_square_images_only():
    """A limitation of torch, not of the model: duck sizing takes equal sizes of the first input for one symbol.

    Sizes become symbols before any backend sees a graph, so that the quickest shows it.
    """
    model = build((1,))
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=True)
    with torch.no_grad():
        for size in ((64, 64), (96, 96)):
            assert relative(compiled(image(*size)), model(image(*size))) < 1e-5
        with pytest.raises(torch._dynamo.exc.RecompileError):
            compiled(image(64, 128))


def test_at_its_own_size_a_static_graph_resizes_nothing_and_builds_no_cosines(graphs):
    with torch.no_grad():
        torch.compile(build((1,)), backend=graphs, fullgraph=True, dynamic=False)(image())
    assert "conv2d" in graphs.functions()
    assert not graphs.functions() & {"interpolate", "cos"}


def test_a_wrong_size_is_refused_within_a_compiled_model():
    compiled = torch.compile(build((1,)), backend="eager")
    with pytest.raises(ValueError, match="divisible by 32, not 65x64"):
        compiled(image(65, 64))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("deployed", [False, True])
def test_export_with_a_dynamic_batch(strict, deployed):
    model = build((1,))
    if deployed:
        model.deploy()
    with torch.no_grad():
        exported = export(model, (image(),), dynamic_shapes={"x": {0: Dim("batch", min=1)}}, strict=strict)
        # linear layers stay what they are: only a compiler is given convolutions for them
        assert sum("conv2d" in str(node.target) for node in exported.graph.nodes) == 2 + 1
        program = exported.module()
        for batch in (1, 2, 5):
            assert relative(program(image(batch=batch)), model(image(batch=batch))) < 1e-5


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_dynamic_height_and_width(strict):
    """In multiples of 32; the range begins at two of them, because torch takes a size of 1 for a constant."""
    model = build()
    height, width = 32 * Dim("rows", min=2, max=16), 32 * Dim("columns", min=2, max=16)
    shapes = {"x": {0: Dim("batch", min=1), 2: height, 3: width}}
    exported = export(model, (image(96, 128),), dynamic_shapes=shapes, strict=strict)
    # by the operators of torch: nothing of one machine's libraries
    assert not any("mkldnn" in str(node.target) for node in exported.graph.nodes)
    program = exported.module()
    with torch.no_grad():
        for size in ((64, 64), (96, 96), (64, 160), (512, 64)):
            x = image(*size, batch=1)
            assert relative(program(x), model(x)) < 1e-5
    with pytest.raises((AssertionError, RuntimeError), match=r"Guard failed|divisible"):
        program(image(80, 64))


def test_an_exported_program_is_saved_and_loaded(tmp_path):
    model = build((1,)).deploy()
    torch.export.save(export(model, (image(),)), tmp_path / "model.pt2")
    with torch.no_grad():
        assert relative(torch.export.load(tmp_path / "model.pt2").module()(image()), model(image())) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("deployed", [False, True])
def test_inductor(deployed):
    """Code from torch's default compiler: backward of the training form, inference of the deploy form."""
    model = build((1,))
    if deployed:
        model.deploy()
    with torch.set_grad_enabled(not deployed):
        expected = model(image())
        out = torch.compile(model, fullgraph=True)(image())
    assert relative(out, expected) < 1e-5
    if not deployed:
        theirs = torch.autograd.grad(expected.square().sum(), list(model.parameters()))
        ours = torch.autograd.grad(out.square().sum(), list(model.parameters()))
        assert all(relative(a, b) < 1e-4 for a, b in zip(ours, theirs, strict=True))

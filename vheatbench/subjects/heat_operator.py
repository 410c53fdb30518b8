"""The heat conduction operator as a layer: depthwise convolution, projections, conduction, norm and gate."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from timm.layers import trunc_normal_
from timm.models import register_notrace_function, register_notrace_module
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import statically_known_true

from vheatbench.subjects import fused, lean_autograd
from vheatbench.subjects.heat import triton as heat_triton
from vheatbench.subjects.heat.conduct import choose_backend, conduct_heat
from vheatbench.subjects.heat.cosines import cosine_matrix, cosines_for, heat_decay
from vheatbench.subjects.parts import part
from vheatbench.subjects.paths import has_hooks, path_for

FrequencyResize = Literal["bicubic", "zeropad"]


def _same_grid(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two grids are equal; of a graph with dynamic sizes, whether they are for all of its sizes.

    Comparing symbols outright would give one graph for the size that a model was built for and one for the others.
    """
    known = statically_known_true if torch.compiler.is_compiling() else bool
    return known(one[0] == other[0]) and known(one[1] == other[1])


@register_notrace_function
def resize_frequencies(embedding: Tensor, grid: tuple[int, int], how: FrequencyResize) -> Tensor:
    """Frequency embedding (H, W, C) for another grid.

    ``bicubic`` interpolates over frequency, as the official detection code does at run time. ``zeropad``
    keeps every learned low frequency where it is and pads zeros at the high end (or cuts the high end
    off for a smaller grid), as the official ``interpolate4downstream`` prepares its weights.
    """
    height, width = embedding.shape[0], embedding.shape[1]
    new_height, new_width = grid
    if _same_grid((height, width), grid):
        return embedding
    if how == "zeropad":
        return F.pad(embedding, (0, 0, 0, new_width - width, 0, new_height - height))
    if how != "bicubic":
        raise ValueError(f"unknown frequency resizing {how!r}: 'bicubic' or 'zeropad'")
    image = embedding.permute(2, 0, 1)[None]
    resized = F.interpolate(image.float(), size=(new_height, new_width), mode="bicubic", align_corners=False)
    return resized[0].permute(1, 2, 0).to(embedding.dtype)


def frequency_embedding(grid: tuple[int, int], dim: int) -> nn.Parameter:
    """A fresh frequency embedding of shape (H, W, C), truncated normal with standard deviation 0.02."""
    return nn.Parameter(trunc_normal_(torch.zeros(*grid, dim), std=0.02))


class Conduction(NamedTuple):
    """The core of the operator, taken apart by :meth:`HeatOperator.observe`."""

    before: Tensor
    """The field before the transform, (B, H, W, C)."""
    decay: Tensor
    """The factor of every coefficient, (H, W, C)."""
    after: Tensor
    """The field after the inverse transform, before norm and gate, (B, H, W, C)."""


@register_notrace_module
class HeatOperator(nn.Module):
    """Heat conduction operator of vHeat (paper, section 4.2), channels last.

    depthwise conv 3x3 -> linear C to 2C, split into field u and gate z -> heat conduction of u with
    k = relu(linear(frequency embedding)) -> LayerNorm -> times silu(z) -> linear C to C.

    Args:
        dim: channels C.
        grid: height and width whose cosine matrices are kept at hand; other grids work too.
        backend: how heat is conducted, see :func:`vheatbench.subjects.heat.conduct.conduct_heat`.
    """

    cos_h: Tensor
    cos_w: Tensor

    def __init__(self, dim: int, grid: tuple[int, int], backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.linear = nn.Linear(dim, 2 * dim)
        self.to_k: nn.Module | None = nn.Sequential(nn.Linear(dim, dim), nn.ReLU())
        self.decay: nn.Parameter | None = None
        self.out_norm = nn.LayerNorm(dim, eps=1e-5)
        self.out_linear = nn.Linear(dim, dim)
        self.set_grid(grid)

    @torch.inference_mode(False)  # also called where a model is only moved, and must not make it unfit for training
    def set_grid(self, grid: tuple[int, int]) -> None:
        """Keep the cosine matrices of this grid at hand; other grids build theirs when they come."""
        weight = next(self.parameters())
        self.grid = (int(grid[0]), int(grid[1]))
        for name, n in zip(("cos_h", "cos_w"), self.grid, strict=True):
            # on the meta device there is nothing to compute, and torch takes milliseconds for it
            cosines = weight.new_empty(n, n) if weight.is_meta else cosine_matrix(n, weight.dtype, weight.device)
            self.register_buffer(name, cosines, persistent=False)

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        super()._apply(fn, recurse)
        # A cosine rounded to float32 and widened again is no float64 cosine, and ``to_empty`` leaves
        # non-persistent buffers undefined: build them anew instead of converting them.
        self.set_grid(self.grid)
        return self

    def __prepare_scriptable__(self) -> nn.Module:
        """Asked by ``torch.jit.script`` of every module of a model. Raises NotImplementedError."""
        raise NotImplementedError(
            "vHeat cannot be scripted: which products it takes depends on mode and device, which TorchScript does not "
            "know. Use torch.export or torch.compile; torch.jit.trace works too"
        )

    def diffusivity(self, embedding: Tensor) -> Tensor:
        """k >= 0 for every frequency and channel, shape (H, W, C), in cells squared."""
        assert self.to_k is not None, "the deploy form keeps the decay, not k"
        return self.to_k(embedding)

    def deploy(self, embedding: Tensor, fold: bool = True) -> None:
        """Replace k by the decay it leads to on the embedding's grid (H, W, C); in place.

        ``fold`` moves the depthwise convolution's bias through the linear layer behind it. The operator's
        other neighbours stay: zero padding lets no bias through the convolution, and the gate no norm's.
        """
        if self.to_k is None:
            return
        with torch.no_grad():
            decay = heat_decay(self.diffusivity(embedding))
            bias = self.dwconv.bias
            if fold and bias is not None:
                self.linear.bias.add_((self.linear.weight.double() @ bias.double()).to(bias.dtype))
                self.dwconv.bias = None
        self.decay = nn.Parameter(decay, requires_grad=False)
        self.to_k = None
        self.set_grid((embedding.shape[0], embedding.shape[1]))

    def cosines(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The two cosine matrices for x (B, H, W, C), from the buffers where they fit."""
        if _same_grid((x.shape[1], x.shape[2]), self.grid) and self.cos_h.dtype == x.dtype:
            return self.cos_h, self.cos_w
        return cosines_for(x)

    def decay_map(self, embedding: Tensor | None) -> Tensor:
        """The decay of every coefficient, shape (H, W, C): kept in the deploy form, else from k."""
        if self.decay is not None:
            return self.decay
        assert embedding is not None, "the training form needs the frequency embedding"
        return heat_decay(self.diffusivity(embedding))

    def forward(
        self,
        x: Tensor,
        embedding: Tensor | None = None,
        norm: nn.LayerNorm | None = None,
        residual: Tensor | None = None,
    ) -> Tensor:
        """Map x (B, H, W, C) to (B, H, W, C).

        Args:
            x: input.
            embedding: frequency embedding (H, W, C) of the training form; unused in the deploy form.
            norm: applied to x first. Given here, not before, because the lean path computes it twice.
            residual: added to the result.
        """
        before = () if norm is None else (norm,)
        path = path_for(x, *before, self.dwconv, self.linear, self.out_norm, self.out_linear)
        with part("decay"):
            decay = self.decay_map(embedding)
        if path == "lean":
            out = self._lean(x, decay, norm)
            return out if residual is None else out + residual
        if norm is not None:
            with part("block norm"):
                x = norm(x)
        if path == "fused":
            return self._fused(x, decay, residual)
        out = self._plain(x, decay)
        return out if residual is None else out + residual

    def conduct(self, field: Tensor, decay: Tensor) -> Tensor:
        """Heat conduction of ``field`` (B, H, W, C) with ``decay`` (H, W, C)."""
        return conduct_heat(field, decay, *self.cosines(field), self.backend)

    def observe(self, x: Tensor, embedding: Tensor | None = None, norm: nn.LayerNorm | None = None) -> Conduction:
        """What heat does inside :meth:`forward`, for those who look: plain operations, the operator's own backend.

        Args:
            x: input, (B, H, W, C), channels last in every formulation.
            embedding, norm: as of :meth:`forward`.
        """
        decay = self.decay_map(embedding)
        if norm is not None:
            x = norm(x)
        field = self.linear(self._convolve(x)).chunk(2, dim=-1)[0]
        return Conduction(field, decay, self.conduct(field, decay))

    def _norm_in_kernel(self, field: Tensor, decay: Tensor) -> bool:
        """Whether the last of the Triton kernels also norms and gates: without gradients and outside compilers."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or has_hooks(self.out_norm):
            return False
        backend = choose_backend(field, decay) if self.backend == "auto" else self.backend
        fits = backend == "triton" and heat_triton.unsupported(field, decay) is None
        return fits and type(self.out_norm) is nn.LayerNorm

    def _convolve(self, x: Tensor) -> Tensor:
        with part("dwconv"):
            return self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def _plain(self, x: Tensor, decay: Tensor) -> Tensor:
        x = self._convolve(x)
        with part("linear"):
            field, gate = fused.traced_linear(self.linear, x).chunk(2, dim=-1)
        if self._norm_in_kernel(field, decay):
            norm = self.out_norm
            field = heat_triton.conduct_norm_gate(field, decay, gate, norm.weight, norm.bias, norm.eps)
        else:
            field = self.conduct(field, decay)
            with part("norm"):
                field = self.out_norm(field)
            with part("gate"):
                field = field * F.silu(gate)
        with part("out"):
            return fused.traced_linear(self.out_linear, field)

    def _fused(self, x: Tensor, decay: Tensor, residual: Tensor | None) -> Tensor:
        with part("dwconv"):
            x = fused.convolution(x.permute(0, 3, 1, 2), self.dwconv).permute(0, 2, 3, 1)
        with part("linear"):
            field, gate = fused.halves(x, self.linear)
        field = self.conduct(field, decay)
        with part("norm"):
            field = self.out_norm(field)
        with part("gate"):
            field = field.mul_(gate)
        with part("out"):
            return fused.linear(field, self.out_linear, residual=residual)

    def _lean(self, x: Tensor, decay: Tensor, norm: nn.LayerNorm | None) -> Tensor:
        assert self.dwconv.bias is not None, "a path that path_for takes only with one"
        layers = (self.dwconv.weight, self.dwconv.bias, self.linear.weight, self.linear.bias)
        if norm is None:
            field, gate = lean_autograd.conv_linear(x, *layers)
        else:
            field, gate = lean_autograd.norm_conv_linear(x, norm.weight, norm.bias, norm.eps, *layers)
        field = self.conduct(field, decay)
        after, out = self.out_norm, self.out_linear
        return lean_autograd.norm_gate_linear(field, gate, after.weight, after.bias, after.eps, out.weight, out.bias)

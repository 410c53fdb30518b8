"""Where the cells of a feature map look: the pixel in the middle of what a cell sees, by strides and padding.

RepLKNet's and VMamba's scripts take cell H // 2 and measure about pixel H // 2 of the input. That is half a cell off
for patches that do not overlap (ViT: cell 7 of 14 looks at pixel 120 of 224) and up to half a stride for convolutions
with padding (vHeat's stage 4: cell 3 of 7 looks at pixel 96).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

Size = tuple[int, int]
POOLINGS = (nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Axis:
    """Cells along one axis: cell ``i`` looks at ``offset + stride * i``, in pixels from the edge of the image."""

    stride: float
    offset: float

    def at(self, cell: float) -> float:
        return self.offset + self.stride * cell

    def after(self, window: Window) -> Axis:
        """The cells of the next map, each of which looks through ``window`` at these."""
        middle = (window.kernel - 1) * window.dilation / 2 - window.padding
        return Axis(self.stride * window.stride, self.at(middle))


@dataclass(frozen=True)
class Window:
    """A convolution or pooling along one axis."""

    kernel: int
    stride: int
    padding: int
    """Before the first cell."""
    dilation: int = 1


@dataclass(frozen=True)
class Step:
    """One module that made a smaller map."""

    before: Size
    after: Size
    windows: tuple[Window, Window]

    @property
    def ratio(self) -> float:
        """How many times fewer cells there are after it."""
        return self.before[0] * self.before[1] / (self.after[0] * self.after[1])

    @property
    def kernel(self) -> int:
        return self.windows[0].kernel * self.windows[1].kernel


@dataclass
class Geometry:
    """The chain of map sizes from the image to every layer of a model, at one input size.

    Maps are told apart by their size. Where several modules lead to the same size, the smallest step counts, for
    the others bypass it (a residual's shortcut, the pooling of keys and values in attention), then the largest
    kernel, then the first. A size that no convolution or pooling leads to is a partition into cells that do not
    overlap, as Swin's patch merging.
    """

    image: Size
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Within it, every call of a convolution or pooling of ``model`` is noted."""
        handles = [
            module.register_forward_hook(self._note)
            for module in model.modules()
            if isinstance(module, (nn.Conv2d, *POOLINGS))
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def axes(self, size: Size) -> tuple[Axis, Axis]:
        """The cells of a map of ``size``, down and across."""
        return self._axes(size)[0]

    def how(self, size: Size) -> str:
        """In words, how :meth:`axes` knows."""
        return self._axes(size)[1]

    def _axes(self, size: Size) -> tuple[tuple[Axis, Axis], str]:
        if size == self.image:
            return (Axis(1, 0.5), Axis(1, 0.5)), "the image's own pixels"
        steps = [step for step in self.steps if step.after == size and _larger(step.before, size)]
        if steps:
            step = min(steps, key=lambda step: (step.ratio, -step.kernel))
            down, across = self.axes(step.before)
            return (down.after(step.windows[0]), across.after(step.windows[1])), "strides and padding"
        # the coarsest map that is whole multiples finer: what was merged into these cells
        known = {self.image, *(step.after for step in self.steps)}
        finer = [s for s in known if _larger(s, size) and _merged(s, size) is not None]
        source = min(finer, key=lambda s: s[0] * s[1], default=None)
        if source is None:
            pair = (_evenly_spaced(self.image[0], size[0]), _evenly_spaced(self.image[1], size[1]))
            return pair, "assumed: cells spread evenly over the image, for no module explains their number"
        ratios = _merged(source, size)
        assert ratios is not None
        down, across = (
            axis.after(Window(ratio, ratio, 0)) for axis, ratio in zip(self.axes(source), ratios, strict=True)
        )
        words = f"cells of {ratios[0]}x{ratios[1]} that do not overlap, of the {source[0]}x{source[1]} map"
        return (down, across), words

    def _note(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        images = args[0] if args else None
        if not isinstance(images, Tensor) or not isinstance(output, Tensor) or images.ndim != 4 or output.ndim != 4:
            return
        before, after = _size(images), _size(output)
        if _larger(before, after):
            pairs = zip(
                *(_both(getattr(module, name, 1)) for name in ("kernel_size", "stride", "dilation")), strict=True
            )
            padding = getattr(module, "padding", 0)
            declared = (0, 0) if isinstance(padding, str) else _both(padding)
            windows = [
                _window(kernel, stride, dilation, declared[i], before[i], after[i])
                for i, (kernel, stride, dilation) in enumerate(pairs)
            ]
            self.steps.append(Step(before, after, (windows[0], windows[1])))


def central_cells(n: int) -> tuple[int, ...]:
    """The middle cell of an odd number, the two middle cells of an even one."""
    return (n // 2,) if n % 2 else (n // 2 - 1, n // 2)


def _window(kernel: int, stride: int, dilation: int, padding: int, before: int, after: int) -> Window:
    reach = dilation * (kernel - 1) + 1
    if (before + 2 * padding - reach) // stride + 1 != after:
        # padded by itself before the convolution, "same": the smaller half in front, as TensorFlow does
        padding = max((after - 1) * stride + reach - before, 0) // 2
    return Window(kernel, stride, padding, dilation)


def _merged(finer: Size, size: Size) -> tuple[int, int] | None:
    """Cells of ``finer`` in one of ``size``, down and across; the last one of a side may be padded."""
    ratios = (math.ceil(finer[0] / size[0]), math.ceil(finer[1] / size[1]))
    fits = all(math.ceil(f / r) == s for f, r, s in zip(finer, ratios, size, strict=True))
    return ratios if fits else None


def _evenly_spaced(pixels: int, cells: int) -> Axis:
    return Axis(pixels / cells, pixels / cells / 2)


def _larger(one: Size, other: Size) -> bool:
    return one != other and one[0] >= other[0] and one[1] >= other[1]


def _size(images: Tensor) -> Size:
    return int(images.shape[2]), int(images.shape[3])


def _both(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])

"""What the sizes of a series are: a model's input in pixels, or an operator's token grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vheatbench.case import PATCH, Case


@dataclass(frozen=True)
class Axis:
    """How sizes are called. A side is that of the square of equal area, in the axis's unit."""

    subject: str
    """What is measured along it: ``model`` or ``operator``."""
    size: str
    """One size, in a sentence: ``size`` or ``grid``."""
    heading: str
    """Of a table's column of sizes."""
    label: str
    """Of a chart's axis of sizes."""
    tokens_label: str
    """Of a chart's axis of tokens."""
    tokens_words: str
    """What a token is, after a number of them."""
    cell: int
    """Side of one token."""

    def tokens(self, side: float) -> float:
        """Number of tokens of a square."""
        return (side / self.cell) ** 2

    def side_of(self, tokens: float) -> float:
        """Side of the square of that many tokens."""
        return math.sqrt(tokens) * self.cell

    def words(self, resolution: tuple[int, int]) -> str:
        """A measured size in a sentence: ``448 px``, ``28×28``."""
        height, width = resolution
        if self.cell == 1:
            return f"{height}×{width}"
        return f"{height} px" if height == width else f"{height}×{width} px"

    def number(self, side: float) -> str:
        """A side without its unit: ``325``; ``7.3`` where a whole cell would be too coarse."""
        return f"{round(side, 1 if side < 20 else 0):g}"

    def near(self, side: float) -> str:
        """A size between the measured ones: ``325 px``, ``35×35``."""
        return f"{self.number(side)}×{self.number(side)}" if self.cell == 1 else f"{self.number(side)} px"

    def about(self, side: float) -> str:
        """The same as something to begin from: ``325 px``, ``a grid of about 35×35``."""
        return f"a grid of about {self.near(side)}" if self.cell == 1 else self.near(side)

    def span(self, first: float, last: float) -> str:
        """From one side to another: ``224 to 640 px``, ``14×14 to 96×96``."""
        return f"{self.near(first) if self.cell == 1 else self.number(first)} to {self.near(last)}"


PIXELS = Axis(
    subject="model",
    size="size",
    heading="size (px)",
    label="resolution (px, side of the square)",
    tokens_label=f"tokens N ({PATCH}×{PATCH} px patches)",
    tokens_words=f"patches of {PATCH}×{PATCH}",
    cell=PATCH,
)
"""Models cut images differently (ViT into 16 x 16 patches, Swin and vHeat at strides 4 to 32), so N is a unit of area
shared by all curves, not the length of one model's sequence. Every model's own token count is N times a constant
(before padding), and exponents do not depend on it."""

GRID = Axis(
    subject="operator",
    size="grid",
    heading="grid",
    label="token grid (side of the square)",
    tokens_label="tokens N",
    tokens_words="tokens",
    cell=1,
)
"""An operator's tokens are the cells of its grid."""


def axis_of(case: Case) -> Axis:
    """The axis that a case's resolution lies on."""
    return GRID if case.kind == "operator" else PIXELS

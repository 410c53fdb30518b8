"""Results of ``vheatbench heat``, as figures and reports take them from a run. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from vheatbench.errors import UserError
from vheatbench.store.attachments import npz_of, read_attachment, read_npz, read_results
from vheatbench.store.read import Run
from vheatbench.store.schema import Record

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class Diffusion:
    """Heat from one cell, spreading by the k of one channel of one block or by a constant k.

    ``frames[i]`` is the inverse DCT of ``coefficients * exp(-k * times[i] * w^2)``, with w^2 the squared angular
    frequency (n pi / H)^2 + (m pi / W)^2: exact for any time, so a script may compute any other.
    """

    record: Record
    """Metrics, conditions, warnings; its status is ``ok``."""
    subject: str
    """As the user named it, e.g. ``vheat-t``."""
    resolution: tuple[int, int]
    """Height and width of the model's input in pixels."""
    layer: str
    """Such as ``stages.1.blocks.0``."""
    channel: str
    """Whose k it is, in words: ``channel 17 (median of mean k)``; empty for a constant k."""
    k_kind: str
    """``learned`` or ``constant 5``."""
    weights: str
    """``random``, or the file's name and the first 12 digits of its SHA-256."""
    source: tuple[float, float]
    """Where the heat begins, as share of height and of width: the middle of the source's cell."""
    cell_px: tuple[float, float]
    """Height and width in pixels of a cell."""
    k: Array
    """(H, W): diffusivity of every frequency, in cells squared per unit of time."""
    coefficients: Array
    """(H, W): orthonormal DCT-II of the field at time 0."""
    times: Array
    """(n,): times, the first 0, then growing; at time 1 the model's operator has been applied once."""
    frames: Array
    """(n, H, W): temperature at the times, 1 in the source's cell and 0 elsewhere at time 0."""
    image: bytes | None
    """PNG of the picture to lay the field over, at ``resolution``."""

    @property
    def mean_kt(self) -> Array:
        """(n,): mean of k over frequencies times the time, in cells squared: comparable between different k."""
        return self.times * float(self.k.mean())

    @property
    def random(self) -> bool:
        """Whether k comes from random weights, which every figure and table names."""
        return self.weights == "random" and self.k_kind == "learned"

    def __str__(self) -> str:
        size = "x".join(map(str, self.k.shape))
        return f"{self.subject} {self.layer}, k {self.k_kind}: heat on {size} cells at {len(self.times)} times"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from vheatbench.studies.heat.images import strip_markup

        return strip_markup([self])


@dataclass(frozen=True, repr=False)
class Diffusivity:
    """What one block's k is: over frequencies, over channels, and what it does to each frequency."""

    record: Record
    """Metrics, conditions, warnings; its status is ``ok``."""
    subject: str
    resolution: tuple[int, int]
    """Height and width of the model's input in pixels."""
    layer: str
    """Such as ``stages.1.blocks.0``."""
    depth: int
    """Position of the block in the model, from 0."""
    rule: str
    """How the frequency embedding was resized to this resolution: ``bicubic``, ``zeropad``; empty at its own size."""
    weights: str
    """``random``, or the file's name and the first 12 digits of its SHA-256."""
    cell_px: tuple[float, float]
    """Height and width in pixels of a cell."""
    mean_map: Array
    """(H, W): mean of k over channels, in cells squared, by frequency (row n, column m)."""
    zero_map: Array
    """(H, W): share of channels whose k is exactly 0, by frequency."""
    channel_quantiles: Array
    """(C, 5): least, quartiles and largest k over frequencies of every channel."""
    histogram: tuple[Array, Array]
    """Edges (n + 1,) evenly spaced in log k, the same for every block, and counts (n,) of positive k; smaller and
    larger ones are counted at the ends, exact zeros not at all (their share is the metric ``k_zero_share``)."""
    radial_frequency: Array
    """(bins,): mean |w| of the frequencies in a bin, in radians per cell, growing."""
    decay_quantiles: Array
    """(bins, 3): quartiles of exp(-k w^2) over the channels and frequencies of a bin."""

    @property
    def random(self) -> bool:
        """Whether k comes from random weights, which every figure and table names."""
        return self.weights == "random"

    @property
    def mean_k(self) -> float:
        """Mean of k over all frequencies and channels, in cells squared."""
        return float(self.mean_map.mean())

    def __str__(self) -> str:
        size = "x".join(map(str, self.mean_map.shape))
        return f"{self.subject} {self.layer}: mean k {self.mean_k:.3g} cells^2 over {size} frequencies"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from vheatbench.studies.heat.diffusivity_figures import map_limits
        from vheatbench.studies.heat.images import k_maps_markup

        return k_maps_markup([(self.layer, f"mean k {self.mean_k:.3g}", self)], map_limits([self]))


@dataclass(frozen=True)
class PointResponse:
    """What the operator makes of heat in one cell with a constant k, beside two other answers."""

    record: Record
    """Metrics, conditions, warnings; its status is ``ok``."""
    grid: tuple[int, int]
    source: tuple[int, int]
    """Row and column of the cell with heat 1."""
    kt: float
    """k times t, in cells squared."""
    operator: Array
    """(H, W): the operator's response."""
    neumann: Array
    """(H, W): heat kernel of the rectangle with insulated walls, at the cells' centres."""
    finite_difference: Array
    """(H, W): exact exponential of the 5-point Laplacian with insulated walls."""


def diffusions_of(run: Run) -> tuple[list[Diffusion], list[str]]:
    """The diffusions in a run, and problems as of :func:`vheatbench.store.attachments.read_results`."""
    return read_results(run, partial(_is_of, "diffuse"), _diffusion)


def diffusivities_of(run: Run) -> tuple[list[Diffusivity], list[str]]:
    """The blocks' diffusivities in a run, and problems as of :func:`diffusions_of`."""
    return read_results(run, partial(_is_of, "diffusivity"), _diffusivity)


def point_responses_of(run: Run) -> tuple[list[PointResponse], list[str]]:
    """The point responses in a run, and problems as of :func:`diffusions_of`."""
    return read_results(run, partial(_is_of, "kernel"), _point_response)


def write_arrays(**arrays: npt.NDArray[Any]) -> bytes:
    """The content of a record's attachment ``arrays``: an npz of these arrays in float64."""
    return npz_of(**{name: np.asarray(array, np.float64) for name, array in arrays.items()})


def _is_of(kind: str, record: Record) -> bool:
    return record.case.mode == "heat" and record.case.analysis.get("kind") == kind


def _diffusion(run: Run, record: Record) -> Diffusion:
    arrays, conditions = _arrays(run, record), record.conditions
    if not arrays["frames"].shape[1:] == arrays["k"].shape == arrays["coefficients"].shape:
        raise ValueError("frames, k and coefficients are not of one grid")
    picture = record.files.get("image")
    return Diffusion(
        **_of_a_block(record),
        channel=str(conditions["channel"]),
        k_kind=str(conditions["k"]),
        source=_two_floats(conditions["source"]),
        k=arrays["k"],
        coefficients=arrays["coefficients"],
        times=arrays["times"],
        frames=arrays["frames"],
        image=None if picture is None else read_attachment(run, picture),
    )


def _diffusivity(run: Run, record: Record) -> Diffusivity:
    arrays, conditions = _arrays(run, record), record.conditions
    return Diffusivity(
        **_of_a_block(record),
        depth=int(conditions["depth"]),
        rule=str(conditions["rule"]),
        histogram=(arrays["edges"], arrays["counts"]),
        mean_map=arrays["mean_map"],
        zero_map=arrays["zero_map"],
        channel_quantiles=arrays["channel_quantiles"],
        radial_frequency=arrays["radial_frequency"],
        decay_quantiles=arrays["decay_quantiles"],
    )


def _of_a_block(record: Record) -> dict[str, Any]:
    """What a :class:`Diffusion` and a :class:`Diffusivity` both say of their block."""
    return {
        "record": record,
        "subject": record.case.subject,
        "resolution": record.case.resolution,
        "layer": str(record.case.analysis["layer"]),
        "weights": str(record.conditions["weights"]),
        "cell_px": _two_floats(record.conditions["cell_px"]),
    }


def _point_response(run: Run, record: Record) -> PointResponse:
    analysis, arrays = record.case.analysis, _arrays(run, record)
    row, column = analysis["source"]
    return PointResponse(
        record=record,
        grid=record.case.resolution,
        source=(int(row), int(column)),
        kt=float(analysis["kt_cells2"]),
        operator=arrays["operator"],
        neumann=arrays["neumann"],
        finite_difference=arrays["finite_difference"],
    )


def _arrays(run: Run, record: Record) -> dict[str, Array]:
    attachment = record.files.get("arrays")
    if attachment is None:
        raise UserError(f"the record in {run.path} names no arrays")
    arrays = read_npz(read_attachment(run, attachment), attachment.name)
    return {name: np.asarray(array, np.float64) for name, array in arrays.items()}


def _two_floats(value: Any) -> tuple[float, float]:
    first, second = value
    return float(first), float(second)

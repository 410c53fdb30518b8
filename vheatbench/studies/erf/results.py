"""Measured effective receptive fields, as figures and reports take them from a run. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vheatbench.errors import UserError
from vheatbench.store.attachments import npz_of, read_attachment, read_npz, read_results
from vheatbench.store.read import Run
from vheatbench.store.schema import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Map = npt.NDArray[np.float32]


@dataclass(frozen=True, repr=False)
class ErfResult:
    """One effective receptive field: of one layer of one model at one size, with its map."""

    record: Record
    """Metrics with their intervals, conditions, warnings; its status is ``ok``."""
    subject: str
    """As the user named it, e.g. ``vheat-t``."""
    resolution: tuple[int, int]
    """Height and width of the input in pixels."""
    layer: str
    """Such as ``stages.3`` or ``blocks.11``."""
    depth: int
    """Position of the layer among those measured of this model, from 0."""
    stride: tuple[int, int]
    """Pixels from a cell of the layer to the next, down and across."""
    weights: str
    """``random``, or the file's name and the first 12 digits of its SHA-256."""
    conduction: str
    """Of a model with heat conduction: ``learned``, ``none`` (k = 0) or the constant k as text; else empty."""
    protocol: str
    """``centre`` (default) or ``replknet``."""
    n_images: int
    images: str
    """Which images, in words."""
    centre: tuple[float, float]
    """Where the chosen cells look, y and x in pixels from the top left corner; pixel i spans [i, i + 1]."""
    map: Map
    """(H, W): rectified gradient, summed over colours, mean over images; raw units."""

    @property
    def random(self) -> bool:
        """Whether the model's weights are random, which every figure and table names."""
        return self.weights == "random"

    @property
    def a50(self) -> float:
        """The smallest share of the pixels that holds half of the mass; its interval is ``record``'s ``erf_a50``."""
        return self._number("erf_a50")

    @property
    def a99(self) -> float:
        """The smallest share of the pixels that holds 99 % of the mass; its interval is ``record``'s ``erf_a99``."""
        return self._number("erf_a99")

    def _number(self, name: str) -> float:
        metric = self.record.metrics.get(name)
        return math.nan if metric is None or metric.value is None else metric.value

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the map: density as colour, contours of A50 and (dotted) A99, a cross at the centre, numbers below.

        Args:
            ax: of matplotlib, whose axes become pixels of the input; new ones where not given.
        """
        from vheatbench.studies.erf.maps import erf_map

        if ax is None:
            import matplotlib.pyplot

            ax = matplotlib.pyplot.figure(figsize=(3.2, 3.6), layout="constrained").subplots()
        return erf_map(ax, self)

    def __str__(self) -> str:
        from vheatbench.studies.erf.maps import panel_lines

        height, width = self.resolution
        size = f"{height}" if height == width else f"{height}x{width}"
        return f"{self.subject} {size} {self.layer}: {', '.join(panel_lines(self))}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from vheatbench.studies.erf.maps import maps_markup

        return maps_markup([self])


def results_of(run: Run) -> tuple[list[ErfResult], list[str]]:
    """The effective receptive fields in a run, and problems as of :func:`vheatbench.store.attachments.read_results`."""
    return read_results(run, lambda record: record.case.mode == "erf", _result)


def _result(run: Run, record: Record) -> ErfResult:
    if "map" not in record.files:
        raise UserError(f"the record in {run.path} names no map")
    analysis, conditions = record.case.analysis, record.conditions
    field, centre = read_map(read_attachment(run, record.files["map"]), record.files["map"].name)
    if field.shape != record.case.resolution:
        raise UserError(f"{record.files['map'].name}: the map is {field.shape}, the input was {record.case.resolution}")
    down, across = conditions["stride"]
    return ErfResult(
        record=record,
        subject=record.case.subject,
        resolution=record.case.resolution,
        layer=str(analysis["layer"]),
        depth=int(conditions["depth"]),
        stride=(int(down), int(across)),
        weights="random" if analysis["weights"] == "random" else str(conditions["weights"]),
        conduction=str(conditions["conduction"]),
        protocol=str(analysis["protocol"]),
        n_images=int(conditions["n_images"]),
        images=str(conditions["images"]["words"]),
        centre=centre,
        map=field,
    )


def write_map(field: Map, centre: tuple[float, float]) -> bytes:
    """The content of a record's attachment: an npz of ``map`` (H, W) float32 and ``centre`` (y, x) in pixels."""
    return npz_of(map=np.asarray(field, np.float32), centre=np.asarray(centre, np.float64))


def read_map(data: bytes, name: str) -> tuple[Map, tuple[float, float]]:
    """Map and centre from :func:`write_map`'s bytes; ``name`` is for messages. Raises UserError."""
    arrays = read_npz(data, name)
    try:
        field = np.asarray(arrays["map"], np.float32)
        y, x = (float(v) for v in arrays["centre"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{name}: not a map of a receptive field ({type(error).__name__})") from None
    if field.ndim != 2:
        raise UserError(f"{name}: the map has {field.ndim} dimensions, not 2")
    return field, (y, x)

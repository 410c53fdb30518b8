"""The catalogue of metrics: what each is called, the unit people read it in, and where it is shown and judged.

A new metric needs the measure that takes it and one line here. One that has no line is shown all the same, by its name
and in the unit that it was recorded in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol

Role = Literal[
    "timed",  # a case of speed and memory can have it, so that a comparison may ask for it
    "portable",  # counted from the model alone, so that it may be compared across machines
    "gated",  # noisy, and judged unless others are asked for
    # columns of a table
    "models",  # of timed models, on the terminal
    "operators",  # of timed operators, on the terminal
    "records",  # of all timed cases, on the page and in Markdown
    "paper",  # of timed cases in LaTeX
    "summary",  # of a CI job's step summary
    "accuracy",
    "training",
    "erf",
    "erf_paper",  # of receptive fields in LaTeX and Markdown
    "diffuse",
    "diffusivity",
    "kernel",
    "headline",  # the first of these that a case of accuracy has is what it is named by
    # on charts and in sentences
    "charted",  # of models against size
    "charted_operators",
    "fitted",  # a cost whose growth with the number of tokens is fitted
    "guided",  # drawn with lines of slope 1, 1.5 and 2 in N
    "overlaid",  # drawn for several runs on one chart
    "crossed",  # from which size on one model beats another in it
    "trended",  # drawn over time, changed or not
]


@dataclass(frozen=True)
class MetricInfo:
    """How one metric is called and shown."""

    name: str
    """In records. The unit that it is stored in is part of it, or stands beside its value."""
    title: str
    """In headings, captions and sentences, without a unit."""
    unit: str = ""
    """That it is shown in."""
    factor: float = 1.0
    """From the stored unit to the one shown."""
    roles: tuple[Role, ...] = ()
    short: str = ""
    """Heading on the terminal, unit included."""
    digits: int = 4
    """Significant digits of a value whose interval does not say how many; 0 for a count, which is whole."""
    per_image: str = ""
    """Of a metric of a whole step: the same of one image, which counts where the batch is the largest that fits."""
    step: str = ""
    """Of a metric of one image: the metric of a whole step that it comes from."""

    @property
    def heading(self) -> str:
        """Of a table's column: ``latency (ms)``."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def terminal_heading(self) -> str:
        """Of a column on the terminal, where there is less room: ``peak MiB``."""
        return self.short or f"{self.title} {self.unit}".rstrip()


S, MS = ("s", 1.0), ("ms", 1e3)
MIB, GB_PER_S, GFLOP_PER_S = ("MiB", 2.0**-20), ("GB/s", 1e-9), ("GFLOP/s", 1e-9)
GMAC, GFLOP = ("GMAC per image", 1e-9), ("GFLOP per image", 1e-9)
PERCENT = ("%", 100.0)

_UNITS = {
    "s": MS, "s/image": ("ms per image", 1e3), "bytes": MIB, "bytes/image": ("MiB per image", 2.0**-20),
    "bytes/s": GB_PER_S, "FLOP/s": GFLOP_PER_S, "MAC/image": GMAC, "FLOP/image": GFLOP,
}  # fmt: skip
"""Unit in which a metric without a line here is stored, to the one that it is shown in."""

_TIMED = (
    MetricInfo(
        "latency_s", "latency", *MS, per_image="latency_per_image_s",
        roles=("timed", "gated", "models", "operators", "records", "paper", "summary", "charted", "charted_operators",
               "fitted", "guided", "overlaid", "trended"),
    ),
    MetricInfo(
        "latency_per_image_s", "time per image", *MS, short="ms/image", step="latency_s",
        roles=("timed", "models", "operators", "records", "paper", "summary", "guided", "trended"),
    ),
    MetricInfo(
        "throughput_images_per_s", "throughput", "images/s", short="images/s",
        roles=("timed", "models", "records", "paper", "summary", "charted", "crossed", "accuracy", "training"),
    ),
    MetricInfo("pipeline_images_per_s", "throughput with loading", "images/s", roles=("accuracy",)),
    MetricInfo(
        "rate_flop_per_s", "rate", *GFLOP_PER_S, short="GFLOP/s", roles=("timed", "models", "operators", "records")
    ),
    MetricInfo(
        "bandwidth_bytes_per_s", "bandwidth", *GB_PER_S, short="GB/s",
        roles=("timed", "models", "operators", "records"),
    ),
    MetricInfo(
        "macs", "multiply-adds", *GMAC, short="GMAC/image",
        roles=("timed", "portable", "models", "records", "paper", "summary", "charted", "charted_operators", "fitted",
               "guided", "crossed"),
    ),
    MetricInfo("flops", "FLOPs", *GFLOP, short="GFLOP/image", roles=("timed", "portable", "models", "records")),
    MetricInfo("macs_fvcore", "multiply-adds by fvcore", *GMAC),
    MetricInfo("macs_fvcore_without_attention", "multiply-adds by fvcore without attention", *GMAC),
    MetricInfo(
        "flops_per_step", "FLOPs of a step", "GFLOP", 1e-9, short="GFLOP", per_image="flops_per_image",
        roles=("timed", "portable", "operators"),
    ),
    MetricInfo(
        "min_bytes", "least traffic", *MIB, short="min MiB", per_image="min_per_image_bytes",
        roles=("timed", "portable", "operators", "records"),
    ),
    MetricInfo("params", "parameters", "M", 1e-6, ("timed", "portable", "models", "records", "training"), "params M"),
    MetricInfo(
        "peak_memory_bytes", "peak memory", *MIB, short="peak MiB", per_image="peak_memory_per_image_bytes",
        roles=("timed", "gated", "models", "operators", "records", "paper", "summary", "charted", "charted_operators",
               "fitted", "overlaid", "crossed", "trended", "training"),
    ),
    MetricInfo(
        "peak_allocated_bytes", "torch allocator peak", *MIB, short="allocated MiB",
        per_image="peak_allocated_per_image_bytes", roles=("timed", "models", "records", "summary", "trended"),
    ),
    MetricInfo(
        "peak_reserved_bytes", "torch reserved peak", *MIB, per_image="peak_reserved_per_image_bytes",
        roles=("timed", "records"),
    ),
    MetricInfo(
        "nvml_process_bytes", "NVML process", *MIB, per_image="nvml_process_per_image_bytes",
        roles=("timed", "records"),
    ),
    MetricInfo("nvml_device_bytes", "NVML device", *MIB, ("timed",), per_image="nvml_device_per_image_bytes"),
    MetricInfo(
        "peak_rss_growth_bytes", "growth of the process", *MIB, ("timed",), per_image="peak_rss_growth_per_image_bytes"
    ),
    MetricInfo(
        "activation_peak_bytes", "peak of activations", *MIB, ("timed",), per_image="activation_peak_per_image_bytes"
    ),
    MetricInfo("weights_bytes", "weights", *MIB, ("timed", "portable")),
    MetricInfo("input_bytes", "input", *MIB, ("timed", "portable"), per_image="input_per_image_bytes"),
    MetricInfo(
        "host_latency_s", "latency on the host's clock", *MS, ("timed",), per_image="host_latency_per_image_s"
    ),
    MetricInfo(
        "energy_per_image_j", "energy", "J per image", short="J/image",
        roles=("timed", "models", "operators", "records", "paper", "charted", "charted_operators", "overlaid"),
    ),
    MetricInfo("mean_power_w", "mean power", "W", roles=("timed",)),
    MetricInfo(
        "largest_batch", "largest batch that fits", "images", short="largest batch", digits=0,
        roles=("timed", "models", "operators", "records", "summary", "charted", "trended"),
    ),
    MetricInfo(
        "compile_time_s", "compile time", *S, short="compile s", roles=("timed", "models", "operators", "records")
    ),
)  # fmt: skip

_ACCURACY = (
    MetricInfo("images", "images", digits=0, roles=("accuracy")),
    MetricInfo("images_unreadable", "unreadable images", digits=0),
    MetricInfo("top1_accuracy", "top-1", *PERCENT, ("accuracy", "training", "headline")),
    MetricInfo("ema_top1_accuracy", "top-1 by averaged weights", *PERCENT, ("training"), "averaged top-1 %"),
    MetricInfo("best_top1_accuracy", "top-1 of the best epoch", *PERCENT, ("training"), "best top-1 %"),
    MetricInfo("top1_gain", "change of top-1", "points", 100.0, ("accuracy"), "change points"),
    MetricInfo("top5_accuracy", "top-5", *PERCENT, ("accuracy")),
    MetricInfo("loss", "loss", "nats", roles=("accuracy")),
    MetricInfo("box_map", "box mAP", *PERCENT, ("accuracy", "headline")),
    MetricInfo("box_map_50", "box AP50", *PERCENT, ("accuracy")),
    MetricInfo("box_map_75", "box AP75", *PERCENT, ("accuracy")),
    MetricInfo("mask_map", "mask mAP", *PERCENT, ("accuracy")),
    MetricInfo("mask_map_50", "mask AP50", *PERCENT, ("accuracy")),
    MetricInfo("mask_map_75", "mask AP75", *PERCENT, ("accuracy")),
    MetricInfo("miou", "mIoU", *PERCENT, ("accuracy", "headline")),
    MetricInfo("miou_multi_scale", "mIoU, several scales", *PERCENT, ("accuracy", "headline")),
    MetricInfo("pixel_accuracy", "pixels right", *PERCENT, ("accuracy")),
    MetricInfo("train_loss", "training loss", "nats", roles=("training")),
    MetricInfo("test_loss", "test loss", "nats", roles=("training")),
    MetricInfo("epoch_s", "time per epoch", *S, ("training"), "epoch s"),
    MetricInfo("training_s", "time in all", *S, ("training"), "in all s"),
    MetricInfo("waiting_share", "waiting for images", *PERCENT, ("training"), "waiting %"),
)

_FIELDS = (
    MetricInfo("erf_images", "images", roles=("erf", "erf_paper", "summary"), digits=0),
    MetricInfo("erf_a50", "A50", "% of the image", 100.0, ("erf", "erf_paper", "summary"), "A50 %", digits=3),
    MetricInfo("erf_a99", "A99", "% of the image", 100.0, ("erf", "erf_paper", "summary"), "A99 %", digits=3),
    MetricInfo("erf_radius_px", "RMS radius", "px", roles=("erf",), short="radius px", digits=3),
    MetricInfo(
        "erf_radius_share", "RMS radius", "% of the shorter side", 100.0, ("erf", "erf_paper", "summary"), "radius %",
        digits=3,
    ),
    MetricInfo("erf_major_px", "long axis", "px", roles=("erf",), digits=3),
    MetricInfo("erf_minor_px", "short axis", "px", roles=("erf",), digits=3),
    MetricInfo("erf_orientation_deg", "orientation", "°", digits=3),
    MetricInfo("erf_entropy_area", "entropy area", *PERCENT, ("erf", "erf_paper", "summary"), digits=3),
    MetricInfo("erf_rect20", "r at 20 %", *PERCENT, short="r20 %", digits=3),
    MetricInfo("erf_rect30", "r at 30 %", *PERCENT, short="r30 %", digits=3),
    MetricInfo("erf_rect50", "r at 50 %", *PERCENT, ("erf",), "r50 %", digits=3),
    MetricInfo("erf_rect99", "r at 99 %", *PERCENT, short="r99 %", digits=3),
)  # fmt: skip

_HEAT = (
    MetricInfo("k_mean_cells2", "mean k", "cells²", 1.0, ("diffuse", "diffusivity", "summary"), digits=3),
    MetricInfo("k_min_cells2", "least k", "cells²", digits=3),
    MetricInfo("k_q25_cells2", "lower quartile of k", "cells²", 1.0, ("diffusivity"), "q25", 3),
    MetricInfo("k_median_cells2", "median k", "cells²", 1.0, ("diffusivity"), "median", 3),
    MetricInfo("k_q75_cells2", "upper quartile of k", "cells²", 1.0, ("diffusivity"), "q75", 3),
    MetricInfo("k_max_cells2", "largest k", "cells²", 1.0, ("diffusivity"), "max", 3),
    MetricInfo("k_zero_share", "k exactly 0", *PERCENT, ("diffuse", "diffusivity", "summary"), "k = 0 %", 3),
    MetricInfo(
        "diffusion_length_cells", "diffusion length", "cells", 1.0, ("diffuse", "diffusivity"),
        "length cells", 3,
    ),
    MetricInfo(
        "diffusion_length_px", "diffusion length", "px", 1.0, ("diffuse", "diffusivity", "summary"),
        "length px", 3,
    ),
    MetricInfo(
        "diffusion_length_share", "diffusion length", "% of the shorter side", 100.0,
        ("diffuse", "diffusivity", "summary"), "length %", 3,
    ),
    MetricInfo("decay_mean", "mean decay", roles=("diffusivity"), digits=3),
    MetricInfo(
        "half_decay_frequency_rad_per_cell", "half-decay |w|", "rad/cell", 1.0, ("diffusivity"),
        "half at rad/cell", 3,
    ),
    MetricInfo(
        "source_kept", "heat kept by the source at t = 1", *PERCENT, ("diffuse", "summary"), "kept at t=1 %", 3
    ),
    MetricInfo("peak", "peak", roles=("kernel", "summary"), digits=3),
    MetricInfo(
        "neumann_error", "error against the Neumann kernel", "% of its peak", 100.0, ("kernel", "summary"),
        "off the heat kernel %", 3,
    ),
    MetricInfo(
        "finite_difference_error", "error against finite differences", "% of their peak", 100.0,
        ("kernel", "summary"), "off differences %", 3,
    ),
    MetricInfo(
        "mass_error", "error of the total heat", roles=("diffuse", "kernel", "summary"), short="mass error",
        digits=3,
    ),
    MetricInfo("undershoot", "undershoot", roles=("diffuse", "kernel", "summary"), digits=3),
    MetricInfo("overshoot", "overshoot", roles=("kernel", "summary"), digits=3),
)  # fmt: skip


def _catalogue(*infos: MetricInfo) -> dict[str, MetricInfo]:
    """By name; behind every metric of a step the same of one image, unless it has a line of its own."""
    own = {info.name for info in infos}
    found = {}
    for info in infos:
        found[info.name] = info
        if info.per_image and info.per_image not in own:
            found[info.per_image] = replace(
                info, name=info.per_image, title=f"{info.title} per image", per_image="", step=info.name,
                short=f"{info.terminal_heading}/image",
            )  # fmt: skip
    return found


CATALOGUE = _catalogue(*_TIMED, *_ACCURACY, *_FIELDS, *_HEAT)
"""Every metric that is known, in the order of the columns."""


class HasUnits(Protocol):
    """A record, or an outcome over several."""

    @property
    def units(self) -> Mapping[str, str]:
        """Names of the metrics that have a value, to the unit that each is stored in."""
        ...


def info_of(name: str, unit: str = "") -> MetricInfo:
    """The metric's line; one made of its name and the unit that it is stored in where it has none."""
    known = CATALOGUE.get(name)
    return known if known is not None else MetricInfo(name, name, *_UNITS.get(unit, (unit, 1.0)))


def with_role(role: Role) -> list[MetricInfo]:
    """The metrics of a role, those per image among them."""
    return [info for info in CATALOGUE.values() if role in info.roles]


def names(role: Role) -> list[str]:
    """Names of the metrics of a role, as measured: without the same per image."""
    return [info.name for info in with_role(role) if not info.step]


def columns(role: Role, found: Iterable[HasUnits]) -> list[MetricInfo]:
    """The columns of a table: what any of the records holds, and either has the role or no line in the catalogue."""
    units = {name: unit for one in found for name, unit in one.units.items()}
    known = [info for info in with_role(role) if info.name in units]
    return [*known, *(info_of(name, unit) for name, unit in units.items() if name not in CATALOGUE)]

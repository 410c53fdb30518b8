"""The catalogue of metrics: what each is called, the unit people read it in, and where it is shown and judged.

A new metric needs the measure that takes it and one line here. One that has no line is shown all the same, by its name
and in the unit that it was recorded in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

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
    allowance: float = 0.0
    """In the stored unit. What a noisy metric varies by however small it is: a comparison adds it to both sides, which
    may be 0. Without one a value of 0 is not compared."""

    @property
    def heading(self) -> str:
        """Of a table's column: ``latency (ms)``."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def capitalised(self) -> str:
        """The title at the beginning of a line: ``Latency``."""
        return self.title[:1].upper() + self.title[1:]

    @property
    def terminal_heading(self) -> str:
        """Of a column on the terminal, where there is less room: ``peak MiB``."""
        return self.short or f"{self.title} {self.unit}".rstrip()


S, MS = ("s", 1.0), ("ms", 1e3)
MIB, GB_PER_S, GFLOP_PER_S = ("MiB", 2.0**-20), ("GB/s", 1e-9), ("GFLOP/s", 1e-9)
GMAC, GFLOP = ("GMAC per image", 1e-9), ("GFLOP per image", 1e-9)
PERCENT = ("%", 100.0)
SMALL_GROWTH = 2.0**20
"""Bytes: the allowance of memory that a process takes from the system. It comes in pages and arenas."""

_UNITS = {
    "s": MS, "s/image": ("ms per image", 1e3), "bytes": MIB, "bytes/image": ("MiB per image", 2.0**-20),
    "bytes/s": GB_PER_S, "FLOP/s": GFLOP_PER_S, "MAC/image": GMAC, "FLOP/image": GFLOP, "share": PERCENT,
}  # fmt: skip
"""Unit in which a metric without a line here is stored, to the one that it is shown in."""


def _info(
    name: str, title: str, unit: str | tuple[str, float] = "", roles: str = "", *, short: str = "", digits: int = 4,
    per_image: str = "", step: str = "", allowance: float = 0.0,
) -> MetricInfo:  # fmt: skip
    """A line. The unit is that of the record, or the one shown with the factor to it; roles stand between spaces."""
    shown, factor = unit if isinstance(unit, tuple) else (unit, 1.0)
    known = tuple(role for role in get_args(Role) if role in roles.split())
    if len(known) < len(roles.split()):
        raise ValueError(f"{name}: {roles} holds what is no role")
    return MetricInfo(name, title, shown, factor, known, short, digits, per_image, step, allowance)


_TIMED = (
    _info(
        "throughput_images_per_s", "throughput", "images/s",
        "timed models records paper summary charted crossed accuracy training", short="images/s",
    ),
    _info("pipeline_images_per_s", "throughput with loading", "images/s", "accuracy", short="with loading"),
    _info(
        "latency_s", "latency", MS,
        "timed gated models operators records paper summary charted charted_operators fitted guided overlaid trended",
        per_image="latency_per_image_s",
    ),
    _info(
        "latency_per_image_s", "time per image", MS, "timed models operators records paper summary guided trended",
        short="ms/image", step="latency_s",
    ),
    _info("rate_flop_per_s", "rate", GFLOP_PER_S, "timed models operators records", short="GFLOP/s"),
    _info("bandwidth_bytes_per_s", "bandwidth", GB_PER_S, "timed models operators records", short="GB/s"),
    _info(
        "peak_memory_bytes", "peak memory", MIB,
        "timed gated models operators records paper summary charted charted_operators fitted overlaid crossed trended "
        "training",
        short="peak MiB", per_image="peak_memory_per_image_bytes", allowance=SMALL_GROWTH,
    ),
    _info(
        "peak_allocated_bytes", "torch allocator peak", MIB, "timed models records summary trended",
        short="allocated MiB", per_image="peak_allocated_per_image_bytes",
    ),
    _info(
        "peak_reserved_bytes", "torch reserved peak", MIB, "timed records", per_image="peak_reserved_per_image_bytes",
        allowance=SMALL_GROWTH,
    ),
    _info(
        "nvml_process_bytes", "NVML process", MIB, "timed records", per_image="nvml_process_per_image_bytes",
        allowance=SMALL_GROWTH,
    ),
    _info(
        "nvml_device_bytes", "NVML device", MIB, "timed", per_image="nvml_device_per_image_bytes",
        allowance=SMALL_GROWTH,
    ),
    _info(
        "peak_rss_growth_bytes", "growth of the process", MIB, "timed", per_image="peak_rss_growth_per_image_bytes",
        allowance=SMALL_GROWTH,
    ),
    _info("activation_peak_bytes", "peak of activations", MIB, "timed", per_image="activation_peak_per_image_bytes"),
    _info(
        "min_bytes", "least traffic", MIB, "timed portable operators records", short="min MiB",
        per_image="min_per_image_bytes",
    ),
    _info(
        "flops_per_step", "FLOPs of a step", ("GFLOP", 1e-9), "timed portable operators", short="GFLOP",
        per_image="flops_per_image",
    ),
    _info(
        "macs", "multiply-adds", GMAC,
        "timed portable models records paper summary charted charted_operators fitted guided crossed",
        short="GMAC/image",
    ),
    _info("flops", "FLOPs", GFLOP, "timed portable models records", short="GFLOP/image"),
    _info("macs_fvcore", "multiply-adds by fvcore", GMAC),
    _info("macs_fvcore_without_attention", "multiply-adds by fvcore without attention", GMAC),
    _info("params", "parameters", ("M", 1e-6), "timed portable models records training", short="params M"),
    _info("weights_bytes", "weights", MIB, "timed portable"),
    _info("input_bytes", "input", MIB, "timed portable", per_image="input_per_image_bytes"),
    _info("host_latency_s", "latency on the host's clock", MS, "timed", per_image="host_latency_per_image_s"),
    _info(
        "energy_per_image_j", "energy", "J per image",
        "timed models operators records paper charted charted_operators overlaid", short="J/image",
    ),
    _info("mean_power_w", "mean power", "W", "timed"),
    _info(
        "largest_batch", "largest batch that fits", "images",
        "timed models operators records summary charted trended", short="largest batch", digits=0,
    ),
    _info("engine_error", "difference from the model's own output", "", "timed records", digits=2),
    _info("int8_error", "error of int8", PERCENT, "timed models records", short="int8 error %", digits=3),
    _info("int8_agreement", "same class in int8", PERCENT, "timed models records", short="same class %", digits=3),
    _info("export_s", "export time", S, "timed records", digits=3),
    _info("exported_bytes", "exported file", MIB, "timed records"),
    _info("exported_nodes", "exported nodes", "", "timed records", digits=0),
    _info("session_s", "session build time", S, "timed records", digits=3),
    _info("compile_time_s", "compile time", S, "timed models operators records", short="compile s"),
)  # fmt: skip

_ACCURACY = (
    _info("images", "images", "", "accuracy", digits=0),
    _info("images_unreadable", "unreadable images", digits=0),
    _info("top1_accuracy", "top-1 accuracy", PERCENT, "accuracy training headline", short="top-1 %"),
    _info("ema_top1_accuracy", "top-1 accuracy by averaged weights", PERCENT, "training", short="averaged top-1 %"),
    _info("best_top1_accuracy", "top-1 accuracy of the best epoch", PERCENT, "training", short="best top-1 %"),
    _info("top1_gain", "change of top-1 accuracy", ("points", 100.0), "accuracy", short="change"),
    _info("top5_accuracy", "top-5 accuracy", PERCENT, "accuracy", short="top-5 %"),
    _info("loss", "loss", "nats", "accuracy", short="loss"),
    _info("box_map", "box mAP", PERCENT, "accuracy headline"),
    _info("box_map_50", "box AP50", PERCENT, "accuracy"),
    _info("box_map_75", "box AP75", PERCENT, "accuracy"),
    _info("box_map_small", "box mAP, small objects", PERCENT, "accuracy"),
    _info("box_map_medium", "box mAP, medium objects", PERCENT, "accuracy"),
    _info("box_map_large", "box mAP, large objects", PERCENT, "accuracy"),
    _info("mask_map", "mask mAP", PERCENT, "accuracy"),
    _info("mask_map_50", "mask AP50", PERCENT, "accuracy"),
    _info("mask_map_75", "mask AP75", PERCENT, "accuracy"),
    _info("mask_map_small", "mask mAP, small objects", PERCENT, "accuracy"),
    _info("mask_map_medium", "mask mAP, medium objects", PERCENT, "accuracy"),
    _info("mask_map_large", "mask mAP, large objects", PERCENT, "accuracy"),
    _info("miou", "mIoU", PERCENT, "accuracy headline"),
    _info("miou_multi_scale", "mIoU, several scales", PERCENT, "accuracy headline"),
    _info("pixel_accuracy", "pixels right", PERCENT, "accuracy"),
    _info("train_loss", "training loss", "nats", "training", short="train loss"),
    _info("test_loss", "test loss", "nats", "training", short="test loss"),
    _info("epoch_s", "time per epoch", S, "training", short="epoch s"),
    _info("training_s", "time in all", S, "training", short="in all s"),
    _info("waiting_share", "waiting for images", PERCENT, "training", short="waiting %"),
)  # fmt: skip

_FIELDS = (
    _info("erf_images", "images", "", "erf erf_paper summary", digits=0),
    _info("erf_a50", "A50", ("% of the image", 100.0), "erf erf_paper summary", short="A50 %", digits=3),
    _info("erf_a99", "A99", ("% of the image", 100.0), "erf erf_paper summary", short="A99 %", digits=3),
    _info("erf_radius_px", "RMS radius", "px", "erf", short="radius px", digits=3),
    _info(
        "erf_radius_share", "RMS radius", ("% of the shorter side", 100.0), "erf erf_paper summary", short="radius %",
        digits=3,
    ),
    _info("erf_major_px", "long axis", "px", "erf", digits=3),
    _info("erf_minor_px", "short axis", "px", "erf", digits=3),
    _info("erf_orientation_deg", "orientation", "°", digits=3),
    _info("erf_entropy_area", "entropy area", PERCENT, "erf erf_paper summary", digits=3),
    _info("erf_rect20", "r at 20 %", PERCENT, short="r20 %", digits=3),
    _info("erf_rect30", "r at 30 %", PERCENT, short="r30 %", digits=3),
    _info("erf_rect50", "r at 50 %", PERCENT, "erf", short="r50 %", digits=3),
    _info("erf_rect99", "r at 99 %", PERCENT, short="r99 %", digits=3),
)  # fmt: skip

_HEAT = (
    _info("k_mean_cells2", "mean k", "cells²", "diffuse diffusivity summary", digits=3),
    _info("k_min_cells2", "least k", "cells²", digits=3),
    _info("k_q25_cells2", "lower quartile of k", "cells²", "diffusivity", short="q25", digits=3),
    _info("k_median_cells2", "median k", "cells²", "diffusivity", short="median", digits=3),
    _info("k_q75_cells2", "upper quartile of k", "cells²", "diffusivity", short="q75", digits=3),
    _info("k_max_cells2", "largest k", "cells²", "diffusivity", short="max", digits=3),
    _info("k_zero_share", "k exactly 0", PERCENT, "diffuse diffusivity summary", short="k = 0 %", digits=3),
    _info("diffusion_length_cells", "diffusion length", "cells", "diffuse diffusivity", short="length cells", digits=3),
    _info("diffusion_length_px", "diffusion length", "px", "diffuse diffusivity summary", short="length px", digits=3),
    _info(
        "diffusion_length_share", "diffusion length", ("% of the shorter side", 100.0), "diffuse diffusivity summary",
        short="length %", digits=3,
    ),
    _info("decay_mean", "mean decay", "", "diffusivity", digits=3),
    _info(
        "half_decay_frequency_rad_per_cell", "half-decay |w|", "rad/cell", "diffusivity", short="half at rad/cell",
        digits=3,
    ),
    _info(
        "source_kept", "heat kept by the source at t = 1", PERCENT, "diffuse summary", short="kept at t=1 %",
        digits=3,
    ),
    _info("peak", "peak", "", "kernel summary", digits=3),
    _info(
        "neumann_error", "error against the Neumann kernel", ("% of its peak", 100.0), "kernel summary",
        short="off the heat kernel %", digits=3,
    ),
    _info(
        "finite_difference_error", "error against finite differences", ("% of their peak", 100.0), "kernel summary",
        short="off differences %", digits=3,
    ),
    _info("mass_error", "error of the total heat", "", "diffuse kernel summary", short="mass error", digits=3),
    _info("undershoot", "undershoot", "", "diffuse kernel summary", digits=3),
    _info("overshoot", "overshoot", "", "kernel summary", digits=3),
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
                short=f"{info.terminal_heading}/image", allowance=0.0,  # of a step, of how many images nobody knows
            )  # fmt: skip
    return found


CATALOGUE = _catalogue(*_ACCURACY, *_TIMED, *_FIELDS, *_HEAT)
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

"""Which attention kernel a step really ran: torch chooses by device, dtype, shape, mask and gradients."""

from __future__ import annotations

from collections.abc import Callable

import torch


def attention_kernels(step: Callable[[], object]) -> list[str]:
    """Names of the operators that torch's scaled_dot_product_attention took in one call of ``step``.

    For example ``_scaled_dot_product_flash_attention_for_cpu``, ``_scaled_dot_product_efficient_attention``
    or ``_scaled_dot_product_attention_math``, from a profile; their backward is left out. Empty where the
    step has no such attention, or where a compiler has taken it apart.
    """
    with torch.autograd.profiler.profile() as profile:
        step()
    names = {event.name.removeprefix("aten::") for event in profile.function_events}
    return sorted(name for name in names if name.startswith("_scaled_dot_product") and "backward" not in name)

"""Triton kernels of the heat operator's core, channels last.

A grid up to 32 x 32 is transformed, decayed and transformed back by one program per image and block of
channels (:func:`whole_grid_kernel`): one read, one write. Larger grids take three passes over memory: rows
(:func:`row_kernel`), columns with the decay between the two transforms (:func:`column_kernel`), rows back.
Where normalisation and gate follow, the last pass does them too (:func:`row_norm_gate_kernel`).

Every product accumulates in float32. What lies between two products, on chip or in memory, has the dtype of
the input: a tensor-core product takes its factors in that dtype anyway, and the passes are bound by memory,
so a float32 buffer between them would double their traffic to save one rounding of four.

Shared conventions: ``height``, ``width``, ``channels`` are the true sizes; constants in capitals are the sizes
of tiles. Cosines come as (2, P, P), the zero-padded DCT-II matrix and its transpose. ``PRECISION`` is that of
float32 products ("ieee" or "tf32"); ``WIDEN`` makes every product a float32 one, for Triton's interpreter,
whose bfloat16 products are wrong.

Importing this module imports Triton.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _product(a, b, accumulator, PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    """accumulator + a @ b in float32."""
    if WIDEN:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, accumulator, input_precision=PRECISION, out_dtype=tl.float32)


@triton.jit
def _swap(tile, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    """(A, B * C) -> (B, A * C)."""
    return tl.reshape(tl.permute(tl.reshape(tile, (A, B, C)), (1, 0, 2)), (B, A * C))


@triton.jit
def whole_grid_kernel(
    x_ptr, decay_ptr, cos_h_ptr, cos_w_ptr, y_ptr, spectrum_ptr,
    height, width, channels, x_image, x_row, x_column,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, KEEP_SPECTRUM: tl.constexpr,
):  # fmt: skip
    """y = IDCT(decay * DCT(x)) of one image and one block of channels, the grid held on chip.

    Neighbouring programs take neighbouring channels, which share cache lines.
    """
    blocks = tl.cdiv(channels, CHANNELS)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    first = (tl.program_id(0) % blocks) * CHANNELS
    dtype = x_ptr.dtype.element_ty
    h = tl.arange(0, HEIGHT)
    w = tl.arange(0, WIDTH)
    # the tile in two orders: (h, (w, c)) in memory's, (m, (n, c)) after the swap
    column = tl.arange(0, WIDTH * CHANNELS) // CHANNELS
    channel = first + tl.arange(0, WIDTH * CHANNELS) % CHANNELS
    inside = (h < height)[:, None] & ((column < width) & (channel < channels))[None, :]
    frequency = tl.arange(0, HEIGHT * CHANNELS) // CHANNELS
    swapped_channel = first + tl.arange(0, HEIGHT * CHANNELS) % CHANNELS
    swapped_inside = (w < width)[:, None] & ((frequency < height) & (swapped_channel < channels))[None, :]
    swapped = w[:, None] * channels + (frequency * width * channels + swapped_channel)[None, :]

    square_h = h[:, None] * HEIGHT + h[None, :]
    square_w = w[:, None] * WIDTH + w[None, :]
    tall = tl.zeros((HEIGHT, WIDTH * CHANNELS), tl.float32)
    wide = tl.zeros((WIDTH, HEIGHT * CHANNELS), tl.float32)

    x = tl.load(
        x_ptr + image * x_image + h[:, None] * x_row + (column * x_column + channel)[None, :], mask=inside, other=0.0
    )
    tile = _product(tl.load(cos_h_ptr + square_h), x, tall, PRECISION, WIDEN)
    tile = _swap(tile.to(dtype), HEIGHT, WIDTH, CHANNELS)
    tile = _product(tl.load(cos_w_ptr + square_w), tile, wide, PRECISION, WIDEN)
    if KEEP_SPECTRUM:
        spectrum = spectrum_ptr + image * (height * width * channels) + swapped
        tl.store(spectrum, tile.to(spectrum_ptr.dtype.element_ty), mask=swapped_inside)
    tile *= tl.load(decay_ptr + swapped, mask=swapped_inside, other=0.0).to(tl.float32)
    tile = _product(tl.load(cos_w_ptr + WIDTH * WIDTH + square_w), tile.to(dtype), wide, PRECISION, WIDEN)
    tile = _swap(tile.to(dtype), WIDTH, HEIGHT, CHANNELS)
    tile = _product(tl.load(cos_h_ptr + HEIGHT * HEIGHT + square_h), tile, tall, PRECISION, WIDEN)
    y = y_ptr + image * (height * width * channels) + (h[:, None] * width + column[None, :]) * channels
    tl.store(y + channel[None, :], tile.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def row_kernel(
    x_ptr, cos_w_ptr, y_ptr,
    height, width, channels, x_image, x_row, x_column,
    WIDTH: tl.constexpr, DEPTH: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, INVERSE: tl.constexpr,
):  # fmt: skip
    """DCT of the rows of an image, or its inverse, for BLOCK of its (row, channel) pairs."""
    pairs = height * channels
    blocks = tl.cdiv(pairs, BLOCK)
    image = (tl.program_id(0) // blocks).to(tl.int64)
    pair = (tl.program_id(0) % blocks) * BLOCK + tl.arange(0, BLOCK)
    row = pair // channels
    channel = pair % channels
    m = tl.arange(0, WIDTH)
    k = tl.arange(0, DEPTH)
    cosines = cos_w_ptr + m[:, None] * WIDTH + k[None, :]
    if INVERSE:
        cosines += WIDTH * WIDTH
    x = x_ptr + image * x_image + (row * x_row + channel)[None, :]
    tile = tl.zeros((WIDTH, BLOCK), tl.float32)
    for start in range(0, width, DEPTH):
        known = (start + k < width)[:, None] & (pair < pairs)[None, :]
        values = tl.load(x + (start + k)[:, None] * x_column, mask=known, other=0.0)
        tile = _product(tl.load(cosines + start), values, tile, PRECISION, WIDEN)
    y = y_ptr + image * (pairs * width) + (row * width * channels + channel)[None, :] + m[:, None] * channels
    tl.store(y, tile.to(y_ptr.dtype.element_ty), mask=(m < width)[:, None] & (pair < pairs)[None, :])


@triton.jit
def column_kernel(
    x_ptr, decay_ptr, cos_h_ptr, y_ptr, spectrum_ptr,
    images, height, line,
    HEIGHT: tl.constexpr, DEPTH: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, KEEP_SPECTRUM: tl.constexpr,
):  # fmt: skip
    """DCT of the columns, decay, inverse DCT of the columns, for BLOCK of the line = width * channels.

    Neighbouring programs take the same block of neighbouring images, so that they share the decay.
    """
    image = (tl.program_id(0) % images).to(tl.int64)
    position = (tl.program_id(0) // images) * BLOCK + tl.arange(0, BLOCK)
    dtype = x_ptr.dtype.element_ty
    n = tl.arange(0, HEIGHT)
    k = tl.arange(0, DEPTH)
    r = tl.arange(0, ROWS)
    x = x_ptr + image * (height * line) + position[None, :]
    tile = tl.zeros((HEIGHT, BLOCK), tl.float32)
    for start in range(0, height, DEPTH):
        known = (start + k < height)[:, None] & (position < line)[None, :]
        values = tl.load(x + (start + k)[:, None] * line, mask=known, other=0.0)
        tile = _product(tl.load(cos_h_ptr + n[:, None] * HEIGHT + (start + k)[None, :]), values, tile, PRECISION, WIDEN)
    inside = (n < height)[:, None] & (position < line)[None, :]
    here = n[:, None] * line + position[None, :]
    if KEEP_SPECTRUM:
        spectrum = spectrum_ptr + image * (height * line) + here
        tl.store(spectrum, tile.to(spectrum_ptr.dtype.element_ty), mask=inside)
    tile *= tl.load(decay_ptr + here, mask=inside, other=0.0).to(tl.float32)
    decayed = tile.to(dtype)
    y = y_ptr + image * (height * line) + position[None, :]
    inverse = cos_h_ptr + HEIGHT * HEIGHT + n[None, :]
    for start in range(0, height, ROWS):
        nothing = tl.zeros((ROWS, BLOCK), tl.float32)
        back = _product(tl.load(inverse + (start + r)[:, None] * HEIGHT), decayed, nothing, PRECISION, WIDEN)
        wanted = (start + r < height)[:, None] & (position < line)[None, :]
        tl.store(y + (start + r)[:, None] * line, back.to(y_ptr.dtype.element_ty), mask=wanted)


@triton.jit
def _norm_gate(tile, channel, channels, weight_ptr, bias_ptr, gate, eps, WEIGHT: tl.constexpr, BIAS: tl.constexpr):
    """LayerNorm over the last axis of a float32 tile, times silu(gate)."""
    tile = tl.where((channel < channels)[None, :], tile, 0.0)
    mean = tl.sum(tile, axis=1) / channels
    tile = tl.where((channel < channels)[None, :], tile - mean[:, None], 0.0)
    variance = tl.sum(tile * tile, axis=1) / channels
    tile *= (1 / tl.sqrt(variance + eps))[:, None]
    if WEIGHT:
        tile *= tl.load(weight_ptr + channel, mask=channel < channels, other=0.0).to(tl.float32)[None, :]
    if BIAS:
        tile += tl.load(bias_ptr + channel, mask=channel < channels, other=0.0).to(tl.float32)[None, :]
    gate = gate.to(tl.float32)
    return tile * gate * tl.sigmoid(gate)


@triton.jit
def row_norm_gate_kernel(
    x_ptr, cos_w_ptr, gate_ptr, weight_ptr, bias_ptr, y_ptr,
    height, width, channels, gate_image, gate_row, gate_column, eps,
    WIDTH: tl.constexpr, DEPTH: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, WEIGHT: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """Inverse DCT of the rows, LayerNorm, gate, for ROWS tokens of one row with all their channels."""
    row = (tl.program_id(0) % height).to(tl.int64)
    image = (tl.program_id(0) // height).to(tl.int64)
    m = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    k = tl.arange(0, DEPTH)
    channel = tl.arange(0, CHANNELS)
    line = (image * height + row) * width * channels
    tile = tl.zeros((ROWS, CHANNELS), tl.float32)
    for start in range(0, width, DEPTH):
        known = (start + k < width)[:, None] & (channel < channels)[None, :]
        values = tl.load(x_ptr + line + (start + k)[:, None] * channels + channel[None, :], mask=known, other=0.0)
        cosines = tl.load(cos_w_ptr + WIDTH * WIDTH + m[:, None] * WIDTH + (start + k)[None, :])
        tile = _product(cosines, values, tile, PRECISION, WIDEN)
    inside = (m < width)[:, None] & (channel < channels)[None, :]
    gates = gate_ptr + image * gate_image + row * gate_row + m[:, None] * gate_column + channel[None, :]
    gate = tl.load(gates, mask=inside, other=0.0)
    tile = _norm_gate(tile, channel, channels, weight_ptr, bias_ptr, gate, eps, WEIGHT, BIAS)
    tl.store(y_ptr + line + m[:, None] * channels + channel[None, :], tile.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def norm_gate_kernel(
    x_ptr, gate_ptr, weight_ptr, bias_ptr, y_ptr,
    height, width, channels, gate_image, gate_row, gate_column, eps,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, WEIGHT: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    """LayerNorm and gate alone, for ROWS tokens of one row: what follows :func:`whole_grid_kernel`."""
    row = (tl.program_id(0) % height).to(tl.int64)
    image = (tl.program_id(0) // height).to(tl.int64)
    m = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, CHANNELS)
    inside = (m < width)[:, None] & (channel < channels)[None, :]
    here = (image * height + row) * width * channels + m[:, None] * channels + channel[None, :]
    gates = gate_ptr + image * gate_image + row * gate_row + m[:, None] * gate_column + channel[None, :]
    tile = tl.load(x_ptr + here, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(gates, mask=inside, other=0.0)
    tile = _norm_gate(tile, channel, channels, weight_ptr, bias_ptr, gate, eps, WEIGHT, BIAS)
    tl.store(y_ptr + here, tile.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def spectrum_product_kernel(a_ptr, b_ptr, sum_ptr, images, size, BLOCK: tl.constexpr):
    """Sum over images of a * b, float32: the gradient of the decay from two spectra of ``size`` values an image."""
    position = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = position < size
    total = tl.zeros((BLOCK,), tl.float32)
    for _ in range(images):
        a = tl.load(a_ptr + position, mask=inside, other=0.0).to(tl.float32)
        total += a * tl.load(b_ptr + position, mask=inside, other=0.0).to(tl.float32)
        a_ptr += size
        b_ptr += size
    tl.store(sum_ptr + position, total, mask=inside)

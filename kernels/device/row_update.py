"""One update of the rows of a table that a step touches, in place; see ``plan/row_update.py``.

A bfloat16 table is read and written as 16-bit words, the upper halves of float32, so that the rounding is explicit.
"""

import triton
import triton.language as tl

from .numbers import ROW_NUMBERS
from .permutation import load_seed, murmur_finalise, stream64

ADAGRAD = tl.constexpr(0)
PARTIAL_ADAM = tl.constexpr(1)
LAZY_ADAM = tl.constexpr(2)
DOMAIN_ROUNDING = tl.constexpr(5)
LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def less_than_1(x):
    """1 - exp(x) for x <= 0, as exact as its argument: by a series where the difference would cancel."""
    series = 1.0 + x / 9.0
    for number in tl.static_range(8, 1, -1):
        series = 1.0 + x / number * series
    return tl.where(x > -0.5, -x * series, 1.0 - tl.exp2(x * LOG2E))


@triton.jit
def load_weights(p_weight, places, mask):
    """fp32; 16-bit words are the upper halves."""
    stored = tl.load(p_weight + places, mask=mask, other=0)
    if p_weight.dtype.element_ty == tl.int16:
        return (stored.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    return stored.to(tl.float32)


@triton.jit
def upper_halves(x, bits):
    """int16: of fp32 numbers, to whose lower halves ``bits`` are added first; NaN stays NaN and infinity itself."""
    word = x.to(tl.int32, bitcast=True)
    is_finite = tl.abs(x) < float("inf")
    kept = tl.where(x != x, word | 0x400000, word)
    return (tl.where(is_finite, word + bits, kept) >> 16).to(tl.int16)


@triton.jit
def rounding_bits(p_seed, step, rows, columns):
    """``draws.rounding.rounding_bits`` (rows, columns)."""
    base = stream64(load_seed(p_seed), tl.full((), DOMAIN_ROUNDING, tl.uint64))
    key = stream64(stream64(base, step.to(tl.uint64)), rows.to(tl.uint64))
    word = murmur_finalise(columns.to(tl.uint32)[None, :] ^ (key >> 32).to(tl.uint32)[:, None])
    word = murmur_finalise(word + (key & 0xFFFFFFFF).to(tl.uint32)[:, None])
    return (word >> 16).to(tl.int32)


@triton.jit
def store_weights(p_weight, places, mask, x, p_seed, step, rows, columns, ROUNDS: tl.constexpr):
    if p_weight.dtype.element_ty == tl.int16:
        if ROUNDS:
            bits = rounding_bits(p_seed, step, rows, columns)
        else:  # to the nearest, ties to even
            bits = 0x7FFF + ((x.to(tl.int32, bitcast=True) >> 16) & 1)
        tl.store(p_weight + places, upper_halves(x, bits), mask=mask)
    else:
        tl.store(p_weight + places, x, mask=mask)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def update_rows_kernel(
    p_weight, p_first, p_second, p_ids, p_count, p_grad, p_rate, p_step, p_seed,
    num_rows, num_items, dim: tl.constexpr, beta1, beta2, rest_1, rest_2, log_beta1, log_beta2, eps, weight_decay,
    RULE: tl.constexpr, ROUNDS: tl.constexpr, APART: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """ROWS of the first ``count`` ids, which are distinct. ``rest_1``: 1 - beta1, which fp32's beta1 would not give.
    ``APART``: the weights are these rows alone, (T, D), apart from their table."""
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = i < tl.minimum(tl.load(p_count), num_rows)
    row = tl.load(p_ids + i, mask=live, other=0).to(tl.int64)
    live = live & (row >= 0) & (row < num_items)
    d = tl.arange(0, BLOCK_D)
    mask = live[:, None] & (d < dim)[None, :]
    places = row[:, None] * dim + d[None, :]
    of_batch = i.to(tl.int64)[:, None] * dim + d[None, :]
    of_weight = of_batch if APART else places
    rate, step = tl.load(p_rate), tl.load(p_step)
    grad = tl.load(p_grad + of_batch, mask=mask, other=0.0).to(tl.float32)
    weight = load_weights(p_weight, of_weight, mask)
    if RULE == ADAGRAD:
        second = tl.load(p_second + row, mask=live, other=0.0) + tl.sum(grad * grad, 1) / dim
        tl.store(p_second + row, second, mask=live)
        move = grad * (rate / (tl.sqrt_rn(second) + eps))[:, None]
    else:
        times = step.to(tl.float32)
        left_1, left_2 = less_than_1(times * log_beta1), less_than_1(times * log_beta2)
        first = tl.load(p_first + places, mask=mask, other=0.0)
        first = beta1 * first + rest_1 * grad
        tl.store(p_first + places, first, mask=mask)
        if RULE == PARTIAL_ADAM:
            second = tl.load(p_second + row, mask=live, other=0.0)
            second = beta2 * second + rest_2 * (tl.sum(grad * grad, 1) / dim)
            tl.store(p_second + row, second, mask=live)
            move = first * (rate / left_1 / (tl.sqrt_rn(second / left_2) + eps))[:, None]
        else:
            second = tl.load(p_second + places, mask=mask, other=0.0)
            second = beta2 * second + rest_2 * grad * grad
            tl.store(p_second + places, second, mask=mask)
            move = first * (rate * tl.sqrt_rn(left_2) / left_1) / (tl.sqrt_rn(second) + eps)
    weight = weight * (1.0 - rate * weight_decay) - move
    store_weights(p_weight, of_weight, mask, weight, p_seed, step, row, d, ROUNDS)

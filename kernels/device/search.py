"""Bisection on the GPU."""

import triton
import triton.language as tl


@triton.jit
def lower_bound(p_sorted, low, high, wanted):
    """The first place in [low, high) whose element is at least ``wanted``, or ``high``; shapes broadcast to that of
    ``low``."""
    size = tl.max(high - low)
    while size > 0:  # the place is among the next ``size``, or the one behind them
        half = (size + 1) // 2
        probe = low + (half - 1)
        inside = probe < high
        behind = inside & (tl.load(p_sorted + probe, mask=inside, other=0) < wanted)
        low = tl.where(behind, probe + 1, low)
        size -= half
    return low

"""Bisection on the GPU."""

import triton
import triton.language as tl


@triton.jit
def lower_bound(p_sorted, low, high, wanted):
    """The first place in [low, high) whose element is at least ``wanted``, or ``high``; blocks of one shape."""
    size = tl.max(tl.ravel(high - low), 0)
    while size > 0:
        middle = low + (high - low) // 2
        open_ = low < high
        behind = open_ & (tl.load(p_sorted + middle, mask=open_, other=0) < wanted)
        low = tl.where(behind, middle + 1, low)
        high = tl.where(open_ & (behind == 0), middle, high)
        size = size // 2
    return low

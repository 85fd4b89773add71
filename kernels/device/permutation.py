"""The keyed permutation on the GPU: device functions that repeat ``draws/permutation.py`` bit for bit."""

import triton
import triton.language as tl


@triton.jit
def mix64(x):
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def stream64(seed, index):
    return mix64(seed + (index + 1) * 0x9E3779B97F4A7C15)


@triton.jit
def load_seed(p_seed):
    """The 64-bit seed from its (low, high) words held as int32: the bytes of one little-endian int64."""
    low = tl.load(p_seed).to(tl.uint32, bitcast=True).to(tl.uint64)
    high = tl.load(p_seed + 1).to(tl.uint32, bitcast=True).to(tl.uint64)
    return (high << 32) | low


@triton.jit
def murmur_finalise(x):
    x = (x ^ (x >> 16)) * 0x85EBCA6B
    x = (x ^ (x >> 13)) * 0xC2B2AE35
    return x ^ (x >> 16)


@triton.jit
def factors(n):
    """(shift, b) of a domain size known only on the device: a = 2^shift, b = ceil(n / a)."""
    length = 0
    for bit in tl.static_range(31):
        length += (n >= (1 << bit)).to(tl.int32)
    shift = length >> 1
    return shift, (n + (1 << shift) - 1) >> shift


@triton.jit
def half_round(
    left, right, n, a_mask, b, p_round_keys, HALF: tl.constexpr, SIZE_ON_DEVICE: tl.constexpr, INVERSE: tl.constexpr
):
    """(left, right) after half-round HALF: even ones move left modulo a, odd ones right modulo b."""
    key = tl.load(p_round_keys + HALF).to(tl.uint32, bitcast=True)
    if HALF % 2 == 0:
        add = tl.umulhi(murmur_finalise(right.to(tl.uint32) ^ key), (a_mask + 1 + right * 0).to(tl.uint32)).to(tl.int32)
        moved = ((left - add) if INVERSE else (left + add)) & a_mask
    else:
        add = tl.umulhi(murmur_finalise(left.to(tl.uint32) ^ key), (b + left * 0).to(tl.uint32)).to(tl.int32)
        moved = (right - add) if INVERSE else (right + add)
        moved = tl.where(moved < 0, moved + b, tl.where(moved >= b, moved - b, moved))
    if SIZE_ON_DEVICE and HALF >= 6:  # only small domains run the second six
        moved = tl.where(n < 256, moved, left if HALF % 2 == 0 else right)
    if HALF % 2 == 0:
        left = moved
    else:
        right = moved
    return left, right


@triton.jit
def network(x, n, shift, b, p_round_keys, HALVES: tl.constexpr, SIZE_ON_DEVICE: tl.constexpr, INVERSE: tl.constexpr):
    a_mask = (1 << shift) - 1
    left = x & a_mask
    right = x >> shift
    for step in tl.static_range(HALVES):
        left, right = half_round(
            left, right, n, a_mask, b, p_round_keys, HALVES - 1 - step if INVERSE else step, SIZE_ON_DEVICE, INVERSE
        )
    return (right << shift) | left


@triton.jit
def permute(x, n, shift, b, p_round_keys, HALVES: tl.constexpr, SIZE_ON_DEVICE: tl.constexpr, INVERSE: tl.constexpr):
    """The image of int32 ``x`` (a block) under the permutation of [0, n), or under its inverse.

    ``p_round_keys`` points at the keys of x's round, one pointer or one for each x. Elements outside [0, n) may be
    passed where the result is not used: they are clamped first, so that cycle walking ends.
    """
    y = network(tl.minimum(tl.maximum(x, 0), n - 1), n, shift, b, p_round_keys, HALVES, SIZE_ON_DEVICE, INVERSE)
    while tl.max(y) >= n:  # rare: the network's domain exceeds n by less than its square root
        y = tl.where(y >= n, network(y, n, shift, b, p_round_keys, HALVES, SIZE_ON_DEVICE, INVERSE), y)
    return y

"""The keyed permutation of Z_n from which every draw is made, once for NumPy, torch and JAX arrays.

A Feistel network over Z_a x Z_b with a = 2^floor(bit_length(n) / 2) and b = ceil(n / a): a half-round adds, modulo a or
b, a keyed hash of the other half; values that leave [0, n) are walked on through the network until they return (cycle
walking). All words are uint32. NumPy and JAX hold them as uint32, torch as int64 below 2^32, so every product and sum
is masked. The Triton twin of this file is ``device/permutation.py``; a test holds the two together bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = Any  # a NumPy, torch or JAX array
Seed = tuple[Array, Array]  # (high, low) uint32 words of a 64-bit seed

MASK = 0xFFFFFFFF
GOLDEN = (0x9E3779B9, 0x7F4A7C15)  # splitmix64's increment, as (high, low)
MIX_1 = (0xBF58476D, 0x1CE4E5B9)  # splitmix64's multipliers
MIX_2 = (0x94D049BB, 0x133111EB)

# of the item permutation; of what rounds permute, blocks or places of a stratum; of rows; of seeds made from seeds
DOMAIN_ITEMS, DOMAIN_BLOCKS, DOMAIN_ROWS, DOMAIN_FOLD = 0, 1, 2, 3
DOMAIN_PARTS = 16  # and on: of the parts of a list behind the first
MAX_HALF_ROUNDS = 12
SMALL_DOMAIN = 256  # below it, 6 half-rounds leave pairs measurably correlated
LARGE_ROUNDS = 3  # full rounds of the other domains


def _repeat(count: int, step: Callable[[Any, Any], Any], state: Any) -> Any:
    for index in range(count):
        state = step(index, state)
    return state


@dataclass(frozen=True)
class Arithmetic:
    """What the permutation needs of an array library, beyond operators."""

    u32: Callable[[Any], Array]  # int or array -> uint32 words
    where: Callable[[Array, Array, Array], Array]
    # walk(step, x, is_outside): x with step applied, element by element, until none is outside
    walk: Callable[[Callable[[Array], Array], Array, Callable[[Array], Array]], Array]
    # repeat(count, step, state): step(count - 1, .. step(0, state)); JAX has its own, to compile one step
    repeat: Callable[[int, Callable[[Any, Any], Any], Any], Any] = _repeat


def _numpy_walk(step: Callable, x: Array, is_outside: Callable) -> Array:
    while (outside := is_outside(x)).any():
        x = np.where(outside, step(x), x)
    return x


NUMPY = Arithmetic(u32=lambda v: np.atleast_1d(np.asarray(v, np.uint32)), where=np.where, walk=_numpy_walk)


def bit_length(xp: Arithmetic, n: Array) -> Array:
    """The number of bits of each word, in integer steps (a float log2 differs between devices)."""
    length = n & 0
    for bit in range(32):
        length = length + xp.where(n >= xp.u32(1 << bit), xp.u32(1), xp.u32(0))
    return length


def multiply_high(x: Array, y: Array) -> Array:
    """The high 32 bits of x * y, from 16-bit halves: no 64-bit integers are needed."""
    x_low, x_high, y_low, y_high = x & 0xFFFF, x >> 16, y & 0xFFFF, y >> 16
    middle = x_high * y_low + ((x_low * y_low) >> 16)
    other = x_low * y_high + (middle & 0xFFFF)
    return x_high * y_high + (middle >> 16) + (other >> 16)


def murmur_finalise(xp: Arithmetic, x: Array) -> Array:
    """MurmurHash3's 32-bit finaliser."""
    mask = xp.u32(MASK)
    x = ((x ^ (x >> 16)) * xp.u32(0x85EBCA6B)) & mask
    x = ((x ^ (x >> 13)) * xp.u32(0xC2B2AE35)) & mask
    return x ^ (x >> 16)


def _add64(xp: Arithmetic, x: Seed, y: Seed) -> Seed:
    mask = xp.u32(MASK)
    low = (x[1] + y[1]) & mask
    carry = xp.where(low < x[1], xp.u32(1), xp.u32(0))
    return (x[0] + y[0] + carry) & mask, low


def _multiply64(xp: Arithmetic, x: Seed, y: Seed) -> Seed:
    mask = xp.u32(MASK)
    high = multiply_high(x[1], y[1]) + ((x[1] * y[0]) & mask) + ((x[0] * y[1]) & mask)
    return high & mask, (x[1] * y[1]) & mask


def _xor_shift64(xp: Arithmetic, x: Seed, bits: int) -> Seed:
    shifted_low = (x[1] >> bits) | ((x[0] << (32 - bits)) & xp.u32(MASK))
    return x[0] ^ (x[0] >> bits), x[1] ^ shifted_low


def mix64(xp: Arithmetic, x: Seed) -> Seed:
    """splitmix64's output function on (high, low) words."""
    first, second = (xp.u32(MIX_1[0]), xp.u32(MIX_1[1])), (xp.u32(MIX_2[0]), xp.u32(MIX_2[1]))
    x = _multiply64(xp, _xor_shift64(xp, x, 30), first)
    x = _multiply64(xp, _xor_shift64(xp, x, 27), second)
    return _xor_shift64(xp, x, 31)


def stream64(xp: Arithmetic, seed: Seed, index: Seed) -> Seed:
    """Element ``index`` of the splitmix64 stream that starts at ``seed``: mix64(seed + (index + 1) * golden)."""
    golden = xp.u32(GOLDEN[0]), xp.u32(GOLDEN[1])
    offset = _multiply64(xp, _add64(xp, index, (xp.u32(0), xp.u32(1))), golden)
    return mix64(xp, _add64(xp, seed, offset))


def round_keys(xp: Arithmetic, seed: Seed, domain: int, rounds: Array) -> Array:
    """The keys of all half-rounds, (half-rounds, ..): high words of stream64(stream64(seed, domain), 16 * round +
    half_round)."""
    base = stream64(xp, seed, (xp.u32(0), xp.u32(domain)))
    rounds = xp.u32(rounds)
    halves = xp.u32(np.arange(MAX_HALF_ROUNDS)).reshape(-1, *[1] * max(rounds.ndim, base[0].ndim))
    return stream64(xp, base, (rounds >> 28, ((rounds << 4) & xp.u32(MASK)) | halves))[0]


def factors(n: int) -> tuple[int, int]:
    """(shift, b) of a domain of n: the network runs over [0, 2^shift) x [0, b)."""
    shift = n.bit_length() >> 1
    return shift, (n + (1 << shift) - 1) >> shift


def half_rounds(domain_size: int) -> int:
    """How many half-rounds the permutation of so many numbers takes: small domains need more to mix."""
    return MAX_HALF_ROUNDS if domain_size < SMALL_DOMAIN else MAX_HALF_ROUNDS // 2


def _network(xp: Arithmetic, x: Array, n: Array, shift: Array, keys: Array, rounds: int, inverse: bool) -> Array:
    a = xp.u32(1) << shift
    b = (n + a - xp.u32(1)) >> shift

    def move_left(left: Array, right: Array, key: Array) -> Array:
        add = multiply_high(murmur_finalise(xp, right ^ key), a)
        return (left + (a - add if inverse else add)) & (a - xp.u32(1))

    def move_right(left: Array, right: Array, key: Array) -> Array:
        add = multiply_high(murmur_finalise(xp, left ^ key), b)
        moved = right + (b - add if inverse else add)
        return xp.where(moved >= b, moved - b, moved)

    def one_round(step: Any, halves: Seed) -> Seed:
        index = rounds - 1 - step if inverse else step
        left, right = halves
        if inverse:
            right = move_right(left, right, keys[2 * index + 1])
            left = move_left(left, right, keys[2 * index])
        else:
            left = move_left(left, right, keys[2 * index])
            right = move_right(left, right, keys[2 * index + 1])
        if rounds > LARGE_ROUNDS:  # only small domains run the rest
            runs = (n < xp.u32(SMALL_DOMAIN)) | (xp.u32(index) < xp.u32(LARGE_ROUNDS))
            left, right = xp.where(runs, left, halves[0]), xp.where(runs, right, halves[1])
        return left, right

    left, right = xp.repeat(rounds, one_round, (x & (a - xp.u32(1)), x >> shift))
    return (right << shift) | left


def permute(xp: Arithmetic, x: Array, n: Array, keys: Array, *, inverse: bool = False) -> Array:
    """The image of each x in [0, n) under the keyed permutation of [0, n), or under its inverse.

    ``n`` is an int or words on the device; ``x``, ``n`` and the keys broadcast; 1 <= n < 2^31.
    """
    rounds = LARGE_ROUNDS if isinstance(n, int) and n >= SMALL_DOMAIN else MAX_HALF_ROUNDS // 2
    length = xp.u32(n.bit_length()) if isinstance(n, int) else bit_length(xp, xp.u32(n))
    n, shift = xp.u32(n), length >> 1

    def network(y: Array) -> Array:
        return _network(xp, y, n, shift, keys, rounds, inverse)

    return xp.walk(network, network(xp.u32(x)), lambda y: y >= n)


def seed_words(seed: int) -> tuple[int, int]:
    """The (high, low) uint32 words of an integer seed, taken modulo 2^64."""
    return (seed >> 32) & MASK, seed & MASK


def fold_words(xp: Arithmetic, seed: Seed, index: Array) -> Seed:
    """A new seed for each (seed, index): stream64(stream64(seed, DOMAIN_FOLD), index)."""
    base = stream64(xp, seed, (xp.u32(0), xp.u32(DOMAIN_FOLD)))
    return stream64(xp, base, (xp.u32(0), index))


def fold_seed(seed: int, index: int) -> int:
    """A new 64-bit seed for ``index`` in [0, 2^32): a training step, a data-parallel rank, a mesh axis index.

    Seeds of different indices draw independently; ``seed + index`` would also do, but would hand rank 1 at step 0 the
    draws of rank 0 at step 1. The result is the same as folding on the device with ``fold_words``.
    """
    return int(fold_seeds(seed, np.array([index & MASK]))[0])


def fold_seeds(seed: int, indices: npt.NDArray[np.integer]) -> npt.NDArray[np.uint64]:
    """`fold_seed` of each of ``indices`` (n,), (n,) uint64."""
    high, low = seed_words(seed)
    folded = fold_words(NUMPY, (NUMPY.u32(high), NUMPY.u32(low)), NUMPY.u32(indices & MASK))
    return folded[0].astype(np.uint64) << np.uint64(32) | folded[1].astype(np.uint64)

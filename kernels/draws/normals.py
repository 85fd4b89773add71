"""Standard normals that follow from a seed, the same in NumPy, torch, JAX and Triton: what random projections are made
of.

Contract, for row r and column c, with 32-bit words and additions modulo 2^32: (high, low) = stream64(stream64(seed,
DOMAIN_NORMALS), r); w = murmur(murmur(c ^ high) + low); k = floor(w / 2^9); the normal is sqrt(2) erfinv((2 k + 1) /
2^23 - 1). The argument of erfinv is an odd multiple of 2^-23, exact in fp32, symmetric about 0 and never 1 or -1:
normals lie within 5.3 of 0 and differ between implementations by the rounding of erfinv alone. The Triton twin is
``device/normals.py``, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from . import permutation as pm
from .permutation import Arithmetic, Array, Seed

DOMAIN_NORMALS = 4  # beside the domains of permutation.py
DROPPED_BITS = 9  # of a word: fp32 holds 2 k + 1 exactly


def normal_places(xp: Arithmetic, seed: Seed, rows: Array, columns: Array) -> Array:
    """k (rows, columns) in [0, 2^23), of each row and column index."""
    base = pm.stream64(xp, seed, (xp.u32(0), xp.u32(DOMAIN_NORMALS)))
    high, low = pm.stream64(xp, base, (xp.u32(0), xp.u32(rows)))
    words = pm.murmur_finalise(xp, xp.u32(columns)[None, :] ^ high[:, None])
    return pm.murmur_finalise(xp, (words + low[:, None]) & xp.u32(pm.MASK)) >> DROPPED_BITS


def normals_of_places(places: Array, erfinv: Callable[[Array], Array]) -> Array:
    """The normals of k, given as floats; every step but ``erfinv`` and the last is exact in fp32."""
    return erfinv(places * 2.0**-22 + (2.0**-23 - 1.0)) * math.sqrt(2.0)

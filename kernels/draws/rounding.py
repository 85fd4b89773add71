"""Random bits by which numbers are rounded to bfloat16, the same in NumPy, torch, JAX and Triton.

Contract, for the update number ``step`` of row r, column c, with 32-bit words and additions modulo 2^32: (high, low) =
stream64(stream64(stream64(seed, DOMAIN_ROUNDING), step), r); w = murmur(murmur(c ^ high) + low); the bits are floor(w /
2^16). They are added to a float32's lower half, and the upper half is kept: x goes to the bfloat16 above it with a
probability that is its distance from the one below, in units of theirs, so that the mean is x. The Triton twin is in
``device/row_update.py``, bit for bit.
"""

from __future__ import annotations

from . import permutation as pm
from .permutation import Arithmetic, Array, Seed

DOMAIN_ROUNDING = 5  # beside the domains of permutation.py and normals.py


def rounding_bits(xp: Arithmetic, seed: Seed, step: Array, rows: Array, columns: Array) -> Array:
    """The bits (rows, columns) in [0, 2^16), of each row and column index."""
    base = pm.stream64(xp, seed, (xp.u32(0), xp.u32(DOMAIN_ROUNDING)))
    base = pm.stream64(xp, base, (xp.u32(0), xp.u32(step)))
    high, low = pm.stream64(xp, base, (xp.u32(0), xp.u32(rows)))
    words = pm.murmur_finalise(xp, xp.u32(columns)[None, :] ^ high[:, None])
    return pm.murmur_finalise(xp, (words + low[:, None]) & xp.u32(pm.MASK)) >> 16

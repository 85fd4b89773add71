"""Products of vectors with centres: the largest of each block of vectors, and those of chosen blocks; see
``plan/nearest.py``."""

import triton
import triton.language as tl

from .numbers import ROW_NUMBERS
from .row_results import load_rows


@triton.jit
def counted_vectors(p_counted, vectors, num_vectors, HAS_COUNTED: tl.constexpr):
    """Which vectors there are, and count."""
    inside = vectors < num_vectors
    if HAS_COUNTED:
        inside = inside & (tl.load(p_counted + vectors, mask=inside, other=0).to(tl.int32) != 0)
    return inside


@triton.jit(do_not_specialize=ROW_NUMBERS)
def block_maxima_kernel(
    p_centres, p_vectors, p_counted, p_maxima, p_tile_maxima, num_centres, num_vectors, num_blocks, dim: tl.constexpr,
    HAS_COUNTED: tl.constexpr, HAS_TILES: tl.constexpr,
    BLOCK: tl.constexpr, TILE_V: tl.constexpr, TILE_C: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The largest product (centres, blocks) of each centre with the vectors of each block, minus infinity without any;
    HAS_TILES: also (centres, tiles) of each program's TILE_V vectors."""
    tile, num_tiles = tl.program_id(0), tl.num_programs(0)
    vector = tile * TILE_V + tl.arange(0, TILE_V)
    m_vector = vector < num_vectors
    counted = counted_vectors(p_counted, vector, num_vectors, HAS_COUNTED)
    block = tile * (TILE_V // BLOCK) + tl.arange(0, TILE_V // BLOCK)
    v = load_rows(p_vectors, vector, m_vector, 0, dim, BLOCK_D).to(p_centres.dtype.element_ty)
    for first in range(0, num_centres, TILE_C):
        centre = first + tl.arange(0, TILE_C)
        m_centre = centre < num_centres
        dot = tl.dot(load_rows(p_centres, centre, m_centre, 0, dim, BLOCK_D), tl.trans(v), input_precision=PRECISION)
        for first_d in range(BLOCK_D, dim, BLOCK_D):
            c = load_rows(p_centres, centre, m_centre, first_d, dim, BLOCK_D)
            w = load_rows(p_vectors, vector, m_vector, first_d, dim, BLOCK_D).to(c.dtype)
            dot = tl.dot(c, tl.trans(w), dot, input_precision=PRECISION)
        dot = tl.where(counted[None, :], dot, float("-inf"))
        largest = tl.max(tl.reshape(dot, (TILE_C, TILE_V // BLOCK, BLOCK)), 2)
        at = p_maxima + centre.to(tl.int64)[:, None] * num_blocks + block[None, :]
        tl.store(at, largest, mask=m_centre[:, None] & (block < num_blocks)[None, :])
        if HAS_TILES:
            tl.store(p_tile_maxima + centre.to(tl.int64) * num_tiles + tile, tl.max(largest, 1), mask=m_centre)


@triton.jit(do_not_specialize=ROW_NUMBERS)
def block_products_kernel(
    p_centres, p_vectors, p_counted, p_blocks, p_products, num_vectors, num_chosen, parts, dim: tl.constexpr,
    HAS_COUNTED: tl.constexpr,
    BLOCK: tl.constexpr, EACH: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The products (centres, chosen blocks * BLOCK) of each centre with the vectors of its chosen blocks, minus
    infinity where none counts."""
    centre = (tl.program_id(0) // parts).to(tl.int64)
    i = tl.program_id(0) % parts * (EACH * BLOCK) + tl.arange(0, EACH * BLOCK)
    m_i = i < num_chosen * BLOCK
    block = tl.load(p_blocks + centre * num_chosen + i // BLOCK, mask=m_i, other=0).to(tl.int32)
    vector = block * BLOCK + i % BLOCK
    counted = m_i & counted_vectors(p_counted, vector, num_vectors, HAS_COUNTED)
    product = tl.zeros((EACH * BLOCK,), tl.float32)
    for first_d in range(0, dim, BLOCK_D):
        d = first_d + tl.arange(0, BLOCK_D)
        c = tl.load(p_centres + centre * dim + d, mask=d < dim, other=0.0)
        v = load_rows(p_vectors, vector, counted, first_d, dim, BLOCK_D).to(c.dtype)
        # a select, so that no lane adds its own term unrounded to another's: all lanes come to the same bits
        terms = tl.where(counted[:, None], v.to(tl.float32) * c.to(tl.float32)[None, :], 0.0)
        product += tl.sum(terms, 1)
    product = tl.where(counted, product, float("-inf"))
    tl.store(p_products + centre * (num_chosen * BLOCK) + i, product, mask=m_i)

"""Tile shapes, warps and pipeline depth of the kernels, chosen by dtype and width alone: nothing is tuned at run time."""

from __future__ import annotations

from typing import NamedTuple


class Work(NamedTuple):
    """``rows`` of a tile (or gathered at a time), warps of a program, stages of its pipelined loads."""

    rows: int
    warps: int
    stages: int


class Config(NamedTuple):
    """``block_b`` candidates in ``num_d`` chunks of ``block_d`` columns, and the work of the forward and of the item gradient."""

    block_b: int
    block_d: int
    num_d: int
    forward: Work
    grad: Work


# block_d: (forward, grad); accumulators rows x block_d in fp32 must stay in registers
HALF_TILES = {
    16: (Work(128, 8, 3), Work(64, 4, 3)),
    32: (Work(128, 8, 3), Work(64, 4, 3)),
    64: (Work(128, 8, 3), Work(64, 4, 3)),
    128: (Work(128, 8, 3), Work(64, 4, 3)),
    256: (Work(128, 8, 3), Work(64, 4, 2)),
    512: (Work(64, 8, 2), Work(64, 8, 2)),
}
# fp32 products are three tf32 products whose operands hold twice the registers and shared memory: wider rows go in chunks
FULL_TILES = {
    16: (Work(64, 4, 2), Work(64, 4, 2)),
    32: (Work(64, 4, 2), Work(64, 4, 2)),
    64: (Work(64, 4, 2), Work(64, 4, 2)),
    128: (Work(64, 8, 2), Work(64, 8, 2)),
}
# elements of a gathered tile of the forward and of the gradient: one warp a program, since many small programs hide latency best
GATHERED = (2048, 4096)


def next_power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _chunks(dim: int, largest: int) -> tuple[int, int]:
    block_d = min(max(next_power_of_2(dim), 16), largest)
    return block_d, -(-dim // block_d)


def tile_config(dtype: str, dim: int, shared_rows: int, block_limit: int | None) -> Config:
    """The tiles for a dtype and width; at most ``shared_rows`` rows share candidates, in blocks of ``block_limit`` if given."""
    tiles = FULL_TILES if dtype == "float32" else HALF_TILES
    block_d, num_d = _chunks(dim, max(tiles))
    block_b = 64 if block_limit is None else max(next_power_of_2(block_limit), 16)
    forward, grad = (work._replace(rows=min(work.rows, shared_rows)) for work in tiles[block_d])
    return Config(block_b, block_d, num_d, forward, grad)


def gather_config(dim: int) -> Config:
    """The gathered tiles for a width; a program of the forward serves one row, of the gradient one item."""
    block_d, num_d = _chunks(dim, 512)
    forward, grad = (Work(max(1, min(elements // block_d, 32)), 1, 2) for elements in GATHERED)
    return Config(forward.rows, block_d, num_d, forward, grad)

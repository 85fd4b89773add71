"""Tile shapes, warps and pipeline depth of the kernels, chosen by dtype and width alone: nothing is tuned at run time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TileConfig:
    """``block_m`` rows by ``block_b`` candidates, in ``num_d`` chunks of ``block_d`` columns."""

    block_m: int
    block_b: int
    block_d: int
    num_d: int
    warps: int
    stages: int


@dataclass(frozen=True)
class GatherConfig:
    """``block_b`` gathered rows at a time, in ``num_d`` chunks of ``block_d`` columns."""

    block_b: int
    block_d: int
    num_d: int
    warps: int


# block_d: (block_m, warps, stages); accumulators block_m x block_d in fp32 must stay in registers
HALF_TILES = {16: (128, 8, 3), 32: (128, 8, 3), 64: (128, 8, 3), 128: (128, 8, 3), 256: (128, 8, 2), 512: (64, 8, 2)}
# fp32 products are three tf32 products whose operands hold twice the registers and shared memory: wider rows go in chunks
FULL_TILES = {16: (64, 4, 2), 32: (64, 4, 2), 64: (64, 4, 2), 128: (64, 8, 2)}


def next_power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _chunks(dim: int, largest: int) -> tuple[int, int]:
    block_d = min(max(next_power_of_2(dim), 16), largest)
    return block_d, -(-dim // block_d)


def tile_config(dtype: str, dim: int, shared_rows: int, block_limit: int | None) -> TileConfig:
    """The tile for a dtype and width; at most ``shared_rows`` rows share candidates, in blocks of ``block_limit`` if given."""
    tiles = FULL_TILES if dtype == "float32" else HALF_TILES
    block_d, num_d = _chunks(dim, max(tiles))
    block_m, warps, stages = tiles[block_d]
    block_b = 64 if block_limit is None else max(next_power_of_2(block_limit), 16)
    return TileConfig(min(block_m, shared_rows), block_b, block_d, num_d, warps, stages)


def gather_config(dim: int) -> GatherConfig:
    """The gather tile for a width: about 8192 elements."""
    block_d, num_d = _chunks(dim, 512)
    return GatherConfig(min(8192 // block_d, 64), block_d, num_d, 4)

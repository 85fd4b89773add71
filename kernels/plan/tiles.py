"""Tile shapes, warps and pipeline depth of the kernels, chosen by dtype, width and GPU alone: nothing is tuned at run
time.

The tables were measured on an H100. Other GPUs take the same tiles as far as their shared memory allows: fewer stages
first, then narrower chunks.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from ..numbers import next_power_of_2


class Gpu(NamedTuple):
    """Multiprocessors of a GPU, and 10 times the major number of its compute capability plus the minor one."""

    multiprocessors: int
    capability: int


# KiB that a program may use, by compute capability (CUDA C++ programming guide, table of technical specifications)
SHARED_MEMORY = {75: 64, 80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99}
UNKNOWN_SHARED_MEMORY = 64
UNTILED_SHARED_MEMORY = 2048  # bytes that a kernel takes beside its tiles, with room to spare


class Work(NamedTuple):
    """``rows`` of a tile (or gathered at a time), warps of a program, stages of its pipelined loads, most registers of
    a thread.

    Fewer registers let more programs run at once; None leaves their number to the compiler.
    """

    rows: int
    warps: int
    stages: int
    registers: int | None = None


class WholeRows:
    """What programs have in common that take whole rows of ``dim`` numbers, about so many ``elements`` at a time."""

    dim: int
    elements: ClassVar[int]

    @property
    def block_d(self) -> int:
        return max(next_power_of_2(self.dim), 16)

    @property
    def rows_each(self) -> int:
        """Rows of a program at a time."""
        return max(self.elements // self.block_d, 1)


ONE_WARP = Work(0, 1, 3)
PRECISION = "tf32x3"  # of fp32 products: fp32 accuracy from tensor cores; ignored for half inputs


class Config(NamedTuple):
    """``block_b`` candidates in ``num_d`` chunks of ``block_d`` columns, and the work of the forward and of the item
    gradient."""

    block_b: int
    block_d: int
    num_d: int
    forward: Work
    grad: Work
    grad_once: Work  # where no candidates meet more than one group of rows


class GatherConfig(NamedTuple):
    """Gathered tiles in ``num_d`` chunks of ``block_d`` columns."""

    block_d: int
    num_d: int
    forward: Work
    grad: Work


# block_d: (forward, grad, grad_once); accumulators rows x block_d in fp32 must stay in registers
HALF_TILES = {
    16: (Work(128, 4, 4), Work(128, 4, 4), Work(32, 4, 2)),
    32: (Work(128, 4, 4), Work(128, 4, 4), Work(32, 4, 2)),
    64: (Work(128, 4, 5), Work(128, 4, 4), Work(32, 4, 2)),
    128: (Work(64, 4, 5), Work(128, 4, 3), Work(32, 4, 3, 128)),
    256: (Work(64, 4, 4), Work(64, 4, 2), Work(32, 4, 3)),
    512: (Work(64, 8, 2), Work(64, 8, 2), Work(64, 8, 2)),
}
# Where the draw fixes no blocks: mostly every item in order, which needs no look-up before it is loaded. The gradient's
# third stage looks rows up a tile ahead: with two, the compiler may wait for one number after the other before the
# products begin.
ORDERED_TILES = {
    **HALF_TILES,
    128: (Work(64, 4, 4), Work(128, 4, 3), Work(128, 4, 3)),
    256: (Work(64, 4, 2), Work(64, 4, 3), Work(64, 4, 3)),
}
# fp32 products are three tf32 products whose operands hold twice the registers and shared memory: wider rows go in
# chunks
FULL_TILES = {
    16: (Work(64, 4, 2), Work(64, 4, 2), Work(64, 4, 2)),
    32: (Work(64, 4, 2), Work(64, 4, 2), Work(64, 4, 2)),
    64: (Work(64, 4, 2), Work(64, 4, 2), Work(64, 4, 2)),
    128: (Work(64, 8, 2), Work(64, 8, 2), Work(64, 8, 2)),
}
# block_d: work of the forward of half inputs; a row is served by one warp
GATHERED_FORWARD = {
    16: Work(16, 1, 1),
    32: Work(16, 1, 1),
    64: Work(16, 1, 1, 64),
    128: Work(8, 1, 1, 80),
    256: Work(8, 1, 1, 104),
    512: Work(4, 1, 1),
}
# block_d: (half, fp32); one warp and no pipeline: other programs hide the latency of gathers
GATHERED_GRAD = {
    16: (Work(32, 1, 1), Work(32, 1, 1)),
    32: (Work(32, 1, 1), Work(32, 1, 1)),
    64: (Work(32, 1, 1), Work(16, 1, 1)),
    128: (Work(32, 1, 1, 168), Work(16, 1, 1)),
    256: (Work(8, 1, 1), Work(8, 1, 1)),
    512: (Work(8, 1, 1), Work(8, 1, 1)),
}


def _chunks(dim: int, largest: int) -> tuple[int, int]:
    largest = min(largest, 256) if dim > largest else largest  # wider rows than one program holds go in smaller chunks
    block_d = min(max(next_power_of_2(dim), 16), largest)
    return block_d, -(-dim // block_d)


def tile_bytes(dtype: str, block_b: int, block_d: int, num_d: int, work: Work, forward: bool) -> int:
    """Shared memory of a kernel at most: its own tile and one of each stage of what it streams; both once more for the
    parts of fp32 numbers or for other chunks."""
    own, streamed = (work.rows, block_b) if forward else (block_b, work.rows)
    once_more = own + streamed if dtype == "float32" or num_d > 1 else 0
    return (own + work.stages * streamed + once_more) * block_d * (
        4 if dtype == "float32" else 2
    ) + UNTILED_SHARED_MEMORY


def _fitted(work: Work, limit: int, dtype: str, block_b: int, block_d: int, num_d: int, forward: bool) -> Work | None:
    """``work`` with as many of its stages as fit; None where one does not."""
    for stages in range(work.stages, 0, -1):
        fewer = work._replace(stages=stages)
        if tile_bytes(dtype, block_b, block_d, num_d, fewer, forward) <= limit:
            return fewer
    return None


def tile_config(dtype: str, dim: int, shared_rows: int, block_limit: int | None, capability: int) -> Config:
    """The tiles for a dtype, width and GPU; at most ``shared_rows`` rows share candidates, in blocks of ``block_limit``
    if given."""
    half_tiles = ORDERED_TILES if block_limit is None else HALF_TILES
    tiles = FULL_TILES if dtype == "float32" else half_tiles
    limit = SHARED_MEMORY.get(capability, UNKNOWN_SHARED_MEMORY) * 1024
    block_b = 64 if block_limit is None else max(next_power_of_2(block_limit), 16)
    # an fp32 tile of 128 columns in one chunk spilled a thousand bytes of registers
    largest = 64 if dtype == "float32" and dim <= 128 else max(tiles)
    while True:
        block_d, num_d = _chunks(dim, largest)
        works = [work._replace(rows=min(work.rows, shared_rows)) for work in tiles[block_d]]
        # eight warps on fewer than 64 rows or candidates compiled to wrong sums and illegal accesses (Triton 3.6, fp32)
        works = [w._replace(warps=min(w.warps, 4)) if min(w.rows, block_b) < 64 else w for w in works]
        fitted = [_fitted(work, limit, dtype, block_b, block_d, num_d, forward=i == 0) for i, work in enumerate(works)]
        if None not in fitted:
            return Config(block_b, block_d, num_d, *fitted)  # type: ignore[arg-type]
        largest = block_d // 2  # chunks of 16 columns fit everywhere


def gather_config(dtype: str, dim: int) -> GatherConfig:
    """The gathered tiles for a dtype and width."""
    block_d, num_d = _chunks(dim, max(GATHERED_GRAD))
    forward = GATHERED_FORWARD[block_d]
    if dtype == "float32":
        forward = forward._replace(registers=None)
    return GatherConfig(block_d, num_d, forward, GATHERED_GRAD[block_d][dtype == "float32"])

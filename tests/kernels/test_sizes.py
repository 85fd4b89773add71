"""Tables beyond what kernels can index are refused; tiles fit the shared memory of the GPU."""

from __future__ import annotations

import pytest
from cce_minus.kernels import ArgumentError, UniformNegatives
from cce_minus.kernels.plan.buffers import table_buffer
from cce_minus.kernels.plan.problem import Choices, Shapes, build_problem
from cce_minus.kernels.plan.tiles import FULL_TILES, HALF_TILES, SHARED_MEMORY, Gpu, tile_bytes, tile_config


def test_tables_beyond_32_bits_are_refused():
    def tables(rows: int) -> int:
        shapes = Shapes(rows, 8, 100, "bfloat16", "bfloat16", None, None, Gpu(132, 90))
        choices = Choices(None, True, -100, False, None, "uniform", False)
        return table_buffer(build_problem(shapes, choices, UniformNegatives(80, 1).draw(100))).size

    assert tables(2**26) < 2**31  # every row has the keys of a permutation of its own
    with pytest.raises(ArgumentError) as caught:
        tables(2**28)
    assert caught.value.argument == "input"


WIDTHS = (1, 32, 64, 100, 128, 256, 320, 512, 600)


@pytest.mark.parametrize("capability", [*SHARED_MEMORY, 999])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("block_limit", [None, 1, 50, 64])
def test_tiles_fit_the_gpu(capability: int, dtype: str, block_limit: int | None):
    limit = SHARED_MEMORY.get(capability, 64) * 1024
    for dim in WIDTHS:
        for rows in (16, 128, 256):
            c = tile_config(dtype, dim, rows, block_limit, capability)
            assert c.block_d * c.num_d >= dim
            for work, forward in ((c.forward, True), (c.grad, False), (c.grad_once, False)):
                assert tile_bytes(dtype, c.block_b, c.block_d, c.num_d, work, forward) <= limit
                assert work.stages >= 1


def test_an_h100_takes_the_tables_as_they_were_measured():
    for dtype, tiles in (("bfloat16", HALF_TILES), ("float32", FULL_TILES)):
        for block_d, works in tiles.items():
            if (dtype, block_d) != ("float32", 128):  # such rows go in two chunks
                c = tile_config(dtype, block_d, 256, 64, 90)
                assert (c.block_d, c.num_d, c.forward, c.grad, c.grad_once) == (block_d, 1, *works)

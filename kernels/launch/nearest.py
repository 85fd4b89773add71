"""The launches that find the vectors nearest to centres; see ``plan/nearest.py``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial

import torch
from torch import Tensor

from ..device import nearest
from ..numbers import ceil_div, next_power_of_2
from ..plan.nearest import TILE_V, Nearest
from ..plan.tiles import PRECISION, Work
from .programs import Pointer, Program, launch
from .selections import selections

TILE_C = 64  # centres of a product
# columns of a chunk, warps, stages, within the shared memory of any GPU since Ampere; parts of fp32 numbers take
# registers and memory
HALF, WIDE_HALF, FULL = (128, 4, 2), (64, 4, 2), (32, 8, 2)
EACH = 128  # vectors of chosen blocks that a program multiplies


def _sizes(plan: Nearest) -> dict[str, int]:
    """The numbers that the search's kernels name."""
    return {
        "num_centres": plan.num_centres,
        "num_vectors": plan.num_vectors,
        "num_blocks": plan.num_blocks if plan.block else 0,
        "num_chosen": plan.size,
        "size": plan.size,
        "block": plan.block,
        "BLOCK": plan.block,
    }


@lru_cache(maxsize=256)
def select_program(plan: Nearest, has_counted: bool) -> Program:
    """Pointers: values (B, M) fp32, counted? (M,), places (B, size) int32."""
    counted = Pointer("counted") if has_counted else None
    return Program(selections(plan.num_centres, plan.size, "values", plan.num_vectors, "places", counted=counted))


@lru_cache(maxsize=256)
def nearest_program(plan: Nearest, dim: int, dtype: str, has_counted: bool) -> Program:
    """Pointers: centres (B, D) of ``dtype``, vectors (M, D), counted? (M,), places (B, size) int32, and the plan's
    buffers."""
    chunk, warps, stages = FULL if dtype == "float32" else HALF if dim <= HALF[0] else WIDE_HALF
    block_d = min(max(next_power_of_2(dim), 16), chunk)
    shared = _sizes(plan) | {
        "p_centres": Pointer("centres"),
        "p_vectors": Pointer("vectors"),
        "p_counted": Pointer("counted") if has_counted else None,
        "dim": dim,
        "HAS_COUNTED": has_counted,
    }
    maxima = launch(
        nearest.block_maxima_kernel, (plan.num_tiles,), shared,
        p_maxima=Pointer("maxima"), p_tile_maxima=Pointer("tile_maxima") if plan.has_tiles else None,
        HAS_TILES=plan.has_tiles, TILE_V=TILE_V, TILE_C=TILE_C, BLOCK_D=block_d, PRECISION=PRECISION,
        work=Work(TILE_V, warps, stages),
    )  # fmt: skip
    choose = partial(selections, plan.num_centres, plan.size)
    if plan.has_tiles:
        factor = TILE_V // plan.block
        tiles = choose("tile_maxima", plan.num_tiles, "tiles")
        blocks = choose(
            "maxima", plan.num_blocks, "blocks", num_candidates=plan.size * factor, candidates="tiles", factor=factor
        )
    else:
        tiles, blocks = [], choose("maxima", plan.num_blocks, "blocks")
    num_products = plan.size * plan.block
    parts = ceil_div(num_products, EACH)
    products = launch(
        nearest.block_products_kernel, (plan.num_centres * parts,), shared,
        p_blocks=Pointer("blocks"), p_products=Pointer("products"), parts=parts,
        EACH=EACH // plan.block, BLOCK_D=min(block_d, 64),
    )  # fmt: skip
    places = choose("products", num_products, "places", blocks="blocks", block=plan.block, num_vectors=plan.num_vectors)
    return Program([maxima, *tiles, *blocks, products, *places])


def _program(plan: Nearest, dim: int, dtype: str, has_counted: bool) -> Program:
    return nearest_program(plan, dim, dtype, has_counted) if plan.block else select_program(plan, has_counted)


def launch_nearest(outs: Mapping[str, Tensor], ins: Mapping[str, Tensor], plan: Nearest) -> None:
    """ins: centres, vectors, counted?; without blocks values, counted?. outs: places, the plan's buffers."""
    centres = ins.get("centres", ins.get("values"))
    assert centres is not None
    dtype = str(centres.dtype).removeprefix("torch.")
    _program(plan, centres.shape[1], dtype, "counted" in ins).run({**ins, **outs})


def compile_kernels(plan: Nearest, dim: int, dtypes: tuple[tuple[str, str], ...], gpu: int) -> None:
    """Begin to compile for inputs of these dtypes by name for a GPU, and launch nothing."""
    inputs = dict(dtypes)
    by_name = {buffer.name: buffer.dtype for buffer in plan.buffers} | inputs | {"places": "int32"}
    program = _program(plan, dim, inputs.get("centres", "float32"), "counted" in inputs)
    with torch.cuda.device(gpu):
        program.compile_ahead({name: getattr(torch, dtype) for name, dtype in by_name.items()})

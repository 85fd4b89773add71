"""The launches that find the vectors nearest to centres, by blocks; see ``buckets.block_size``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor

from . import bucket_kernels
from .configs import PRECISION, next_power_of_2
from .problem import ceil_div
from .programs import Pointer, Program, launch

TILE_V, CHUNK = 128, 64
TILE_C = {"float32": 32}  # else 64: the parts of fp32 products take registers
EACH = 128  # vectors that a program of the second step multiplies


@lru_cache(maxsize=256)
def maxima_program(num_centres: int, num_vectors: int, dim: int, block: int, has_counted: bool, dtype: str) -> Program:
    """Pointers: centres (B, D) of ``dtype``, vectors (M, D), counted? (M,), maxima (B, ceil(M / block)) fp32."""
    tile_c = TILE_C.get(dtype, 64)
    centre_tiles = ceil_div(num_centres, tile_c)
    return Program([
        launch(
            bucket_kernels.block_maxima_kernel, (centre_tiles * ceil_div(num_vectors, TILE_V),),
            Pointer("centres"), Pointer("vectors"), Pointer("counted") if has_counted else None, Pointer("maxima"),
            num_centres, num_vectors, ceil_div(num_vectors, block), centre_tiles, dim, HAS_COUNTED=has_counted,
            BLOCK=block, TILE_V=TILE_V, TILE_C=tile_c, BLOCK_D=min(max(next_power_of_2(dim), 16), CHUNK), PRECISION=PRECISION,
        ),
    ])  # fmt: skip


@lru_cache(maxsize=256)
def products_program(num_centres: int, num_vectors: int, dim: int, num_chosen: int, block: int, has_counted: bool) -> Program:
    """Pointers: centres (B, D), vectors (M, D), counted? (M,), blocks (B, chosen), products (B, chosen * block) fp32."""
    parts = ceil_div(num_chosen * block, EACH)
    return Program([
        launch(
            bucket_kernels.block_products_kernel, (num_centres * parts,),
            Pointer("centres"), Pointer("vectors"), Pointer("counted") if has_counted else None, Pointer("blocks"), Pointer("products"),
            num_vectors, num_chosen, parts, dim, HAS_COUNTED=has_counted,
            BLOCK=block, EACH=EACH // block, BLOCK_D=min(max(next_power_of_2(dim), 16), CHUNK),
        ),
    ])  # fmt: skip


def launch_maxima(outs: Mapping[str, Tensor], ins: Mapping[str, Tensor], block: int) -> None:
    """ins: centres, vectors, counted?. outs: maxima."""
    (num_centres, dim), num_vectors = ins["centres"].shape, len(ins["vectors"])
    dtype = str(ins["centres"].dtype).removeprefix("torch.")
    maxima_program(num_centres, num_vectors, dim, block, "counted" in ins, dtype).run({**ins, **outs})


def launch_products(outs: Mapping[str, Tensor], ins: Mapping[str, Tensor], block: int) -> None:
    """ins: centres, vectors, counted?, blocks. outs: products."""
    (num_centres, dim), num_vectors = ins["centres"].shape, len(ins["vectors"])
    chosen = ins["blocks"].shape[1]
    products_program(num_centres, num_vectors, dim, chosen, block, "counted" in ins).run({**ins, **outs})


def compile_kernels(
    num_centres: int,
    num_vectors: int,
    dim: int,
    num_chosen: int,
    block: int,
    has_counted: bool,
    centre_dtype: str,
    vector_dtype: str,
) -> None:
    """Compile both steps on the current GPU and launch nothing, for callers that must not compile later; blocks are int32."""
    dtypes = {
        "centres": centre_dtype,
        "vectors": vector_dtype,
        "counted": "bool",
        "blocks": "int32",
        "maxima": "float32",
        "products": "float32",
    }
    by_name = {name: getattr(torch, dtype) for name, dtype in dtypes.items()}
    maxima_program(num_centres, num_vectors, dim, block, has_counted, centre_dtype).compile(by_name)
    products_program(num_centres, num_vectors, dim, num_chosen, block, has_counted).compile(by_name)

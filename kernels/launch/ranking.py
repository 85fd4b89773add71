"""The launches that rank targets among a whole catalog and find the best items; see ``plan/ranking.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from ..device import ranking
from ..numbers import ceil_div, next_power_of_2
from ..plan.ranking import TILE, WORK, Ranking
from .programs import Launch, Pointer, Program, launch
from .selections import selections


@lru_cache(maxsize=256)
def ranking_program(plan: Ranking) -> Program:
    """Pointers: hidden (U, D) fp32, table (V, D), target? (U,), candidates? (V,) uint8, seen_first? (U + 1,) int32,
    seen_items? int32, and the plan's buffers."""
    scratch = {
        each.name: Pointer("scratch", plan.places[0][each.name], getattr(torch, each.dtype)) for each in plan.scratch
    }
    names = {"hidden", "table", *(buffer.name for buffer in plan.buffers), *scratch}
    names |= {"target"} if plan.has_targets else set()
    names |= {"seen_first", "seen_items"} if plan.most_seen else set()
    names |= {"candidates"} if plan.has_candidates else set()
    pointers = ("hidden", "halves", "inverse", "table", "candidates", "target", "seen_first", "seen_items", "score",
                "ahead", "rank", "maxima", "blocks", "products", "places", "top")  # fmt: skip
    bindings = {f"p_{name}": Pointer(name) if name in names else None for name in pointers}
    bindings |= {
        "num_users": plan.num_users,
        "num_items": plan.num_items,
        "num_blocks": plan.num_blocks,
        "dim": plan.dim,
        "k": plan.k,
        "HAS_TARGETS": plan.has_targets,
        "HAS_TOP": plan.k > 0,
        "HAS_CANDIDATES": plan.has_candidates,
        "HAS_SEEN": plan.most_seen > 0,
        "HAS_BLOCKS": plan.has_blocks,
        "BLOCK": plan.block,
        "TILE": TILE,
        "BLOCK_D": plan.block_d,
    }
    programs = (ceil_div(plan.num_users, TILE),)
    launches = [launch(ranking.halve_users_kernel, programs, bindings, work=WORK)]
    if plan.has_targets:
        launches.append(launch(ranking.target_scores_kernel, programs, bindings, work=WORK))
    launches.append(launch(ranking.sweep_kernel, (ceil_div(plan.num_items, TILE),), bindings, work=WORK))
    if plan.most_seen:
        parts = ceil_div(plan.most_seen, TILE)
        launches.append(launch(ranking.seen_kernel, (plan.num_users * parts,), bindings, parts=parts, work=WORK))
    values, num_values = "maxima", plan.num_blocks
    if plan.k and plan.has_blocks:
        launches += selections(plan.num_users, plan.k, values, num_values, "blocks")
        values, num_values = "products", plan.k * plan.block
        parts = ceil_div(num_values, TILE)
        launches.append(launch(ranking.products_kernel, (plan.num_users * parts,), bindings, parts=parts, work=WORK))
    if plan.k:
        launches += selections(plan.num_users, plan.k, values, num_values, "places")
    finish = launch(
        ranking.finish_kernel, (plan.num_users,), bindings,
        p_values=Pointer(values) if plan.k else None, num_values=num_values, WIDTH=next_power_of_2(max(plan.k, 2)),
    )  # fmt: skip
    return Program([_with(scratch, each) for each in (*launches, finish)])


def _with(located: Mapping[str, Pointer], each: Launch) -> Launch:
    """A launch whose arrays are parts of others, where ``located`` says of which."""
    arguments = {
        name: located.get(value.name, value) if isinstance(value, Pointer) else value
        for name, value in each.arguments.items()
    }
    return replace(each, arguments=arguments)


def launch_ranking(outs: Mapping[str, Tensor], ins: Mapping[str, Tensor], plan: Ranking) -> None:
    """ins: hidden, table, candidates?, target?, seen_first?, seen_items?. outs: the plan's buffers, of which rank and
    top are the results."""
    ranking_program(plan).run({**ins, **outs})


def compile_kernels(plan: Ranking, dtypes: tuple[tuple[str, str], ...], gpu: int, *, ahead: bool = True) -> None:
    """Begin to compile for inputs of these dtypes by name for a GPU, and launch nothing; if not ``ahead``, compile
    without touching the GPU."""
    by_name = {buffer.name: buffer.dtype for buffer in plan.buffers} | dict(dtypes)
    program = ranking_program(plan)
    with torch.cuda.device(gpu):
        (program.compile_ahead if ahead else program.compile)(
            {name: getattr(torch, dtype) for name, dtype in by_name.items()}
        )

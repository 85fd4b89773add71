"""The launches on tiles of rows that share candidates."""

from __future__ import annotations

from ..device import gather_grad, item_grad, tiles
from ..numbers import ceil_div
from ..plan.problem import Problem
from ..plan.tiled import Tiled
from ..plan.tiles import ONE_WARP
from .bindings import bindings, tile_bindings
from .lists import list_gradients
from .programs import Launch, launch
from .rows import POSITIVE_PART, combine_forward, zeros_and_targets
from .tables import segment_starts

WIDEST_WITH_PRODUCT = 256  # wider chunks fill the registers: one sorted row at a time
PART_SOURCES = (gather_grad.PARTS.value, gather_grad.SORTED_PARTS.value)


def _plan(p: Problem) -> Tiled:
    assert p.tiled is not None
    return p.tiled


def tile_forward(p: Problem) -> list[Launch]:
    """The forward, and what joins its parts where walks are split."""
    plan = _plan(p)
    work = plan.config.forward
    forward = launch(
        tiles.tile_forward_kernel, (max(plan.forward_tiles, plan.forward_parts), plan.config.num_d), tile_bindings(p),
        num_candidates=plan.end_candidate, FULL=plan.full_slots, SPLIT=plan.forward_parts > 0,
        BLOCK_M=work.rows, work=work,
    )  # fmt: skip
    return [forward, combine_forward(p)] if plan.forward_parts else [forward]


def _item_gradient(p: Problem, programs: int, splits: int, columns: tuple[int, int] = (0, 0)) -> Launch:
    """The item gradient of blocks of candidates, and of the rows that each one walks; of lists of ``columns`` (first,
    number) of them."""
    plan = _plan(p)
    config, work = plan.config, plan.grad_work
    first_column, num_columns = columns
    return launch(
        item_grad.tile_item_grad_kernel, (programs, config.num_d, splits), tile_bindings(p),
        slots=ceil_div(num_columns, plan.block) if p.listed else plan.slots, last_drawn=plan.drawn_blocks - 1,
        first_column=first_column, num_columns=num_columns,
        DRAWN_ONLY=plan.drawn_only, FULL=plan.last_block == plan.block,
        SPLIT=p.listed is not None or plan.grad_splits > 0,
        PART=POSITIVE_PART if config.block_d <= WIDEST_WITH_PRODUCT else 1, BLOCK_M=work.rows, work=work,
    )  # fmt: skip


def _sum_splits(p: Problem) -> list[Launch]:
    """What adds up the partial gradients of split walks by item."""
    launches, plan, shared = [], _plan(p), bindings(p)
    if p.sorts_draws:
        launches.append(segment_starts("sorted_ids", p.negatives, shared["p_draw_starts"], p.num_items + 1, 1))
    sums = launch(
        gather_grad.sum_parts_kernel, (p.num_items, p.row_work.num_d), shared,
        splits=plan.grad_splits, num_candidates=plan.num_candidates, SOURCE=PART_SOURCES[p.kind.by_id], work=ONE_WARP,
    )  # fmt: skip
    return [*launches, sums]


def tile_gradients(p: Problem) -> list[Launch]:
    """The item gradient by what writes it: lists; drawn blocks, with kernels of their own for the other items; or all
    blocks of candidates, whose walks may be split."""
    plan = _plan(p)
    if p.listed:
        zeros, targets = zeros_and_targets(p)
        return [zeros, *list_gradients(p, lambda programs, columns: _item_gradient(p, programs, 1, columns)), targets]
    negatives = _item_gradient(p, plan.grad_blocks, max(plan.grad_splits, 1))
    if plan.drawn_only:
        return [negatives, *zeros_and_targets(p)]
    return [negatives, *_sum_splits(p)] if plan.grad_splits else [negatives]

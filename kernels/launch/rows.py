"""The launches on rows: joining split walks, the input's gradient, and what items get from rows as targets."""

from __future__ import annotations

from ..device import item_grad, rows
from ..numbers import ceil_div
from ..plan.buffers import num_slots
from ..plan.problem import POSITIVE_CHUNK, Problem
from ..plan.tiles import ONE_WARP
from .bindings import bindings, tile_bindings
from .programs import Launch, Pointer, launch
from .tables import segment_starts

ROW_BLOCK = 16  # rows of an element-wise program
ZERO_BLOCK = 32  # items whose gradient a program sets to zero
POSITIVE_PART = 16  # sorted rows of a product, where their sum was not taken beforehand


def combine_forward(p: Problem) -> Launch:
    """What joins the parts of tiles whose walks were split."""
    assert p.tiled is not None
    config = p.tiled.config
    return launch(
        rows.combine_forward_kernel, (ceil_div(p.num_rows, ROW_BLOCK), config.num_d), tile_bindings(p),
        TILE_M=config.forward.rows, BLOCK_M=ROW_BLOCK,
    )  # fmt: skip


def row_gradients(p: Problem, grad_loss_stride: int, has_grad_lse: bool) -> Launch:
    """The input's and the scale's gradient, and what the items' gradient reads of each row."""
    return launch(
        rows.input_grad_kernel, (ceil_div(num_slots(p), ROW_BLOCK),), bindings(p),
        p_grad_lse=Pointer("grad_lse") if has_grad_lse else None, grad_loss_stride=grad_loss_stride,
        SCALE_GRAD=p.wanted.scale, BY_SLOT=p.kind.tiled or not p.kind.by_id, HAS_GRAD_LSE=has_grad_lse,
        BLOCK_M=ROW_BLOCK,
    )  # fmt: skip


def sorted_positives(p: Problem) -> list[Launch]:
    """Where the sorted rows of each segment of targets begin, and the sums of chunks of rows with one target."""
    shared, launches = bindings(p), []
    if not p.listed:
        launches.append(segment_starts("sorted_keys", p.num_rows, shared["p_starts"], p.segments + 1, p.segment_unit))
    if p.num_rows >= POSITIVE_CHUNK:
        grid = p.num_rows // POSITIVE_CHUNK, p.row_work.num_d
        launches.append(launch(rows.popular_sums_kernel, grid, shared, BLOCK_P=POSITIVE_CHUNK))
    return launches


def zeros_and_targets(p: Problem) -> list[Launch]:
    """Zeros for the items that nobody drew and the positives of those that are targets; with groups' lists zeros for
    all items, and the positives of all targets, to be added to what is there."""
    plan = p.tiled
    assert plan is not None
    shared = bindings(p) | {"block": plan.block, "drawn_blocks": plan.drawn_blocks if plan.has_blocks else 0}
    zero_grid, target_grid = (ceil_div(p.positions, ZERO_BLOCK),), (p.num_rows, p.row_work.num_d)
    part = max(1, min(POSITIVE_PART, 1024 // p.row_work.block_d))
    return [
        launch(item_grad.zero_item_grad_kernel, zero_grid, shared, BLOCK_B=ZERO_BLOCK),
        launch(
            item_grad.positive_item_grad_kernel, target_grid, shared,
            HAS_KNOWN=not p.permutes_items, PART=part, work=ONE_WARP,
        ),
    ]  # fmt: skip

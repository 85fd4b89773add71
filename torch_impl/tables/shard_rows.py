"""The rows of a rank's shard of a catalog that a step of all ranks touches, and what a rank's inputs embed of them."""

from __future__ import annotations

import torch
from torch import Tensor

from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import IGNORED, check_own_log_q
from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import Sampler
from ...kernels.plan.group_draw import plan_group_draw
from ...kernels.plan.problem import ELSEWHERE
from ..loss.catalog_shard import CatalogShard
from ..loss.exchange import all_gather, exchanged
from ..loss.gathered_rows import check_alike, is_read, owners, places_in, rows_of_all, rows_of_each, target_places
from ..loss.list_operands import of_shard, row_log_weights
from ..loss.row_losses import spec_of
from ..loss.seeds import folded_seed, seed_words
from ..loss.sharded import own_sampler
from ..loss.working_set import WorkingSet
from .embedding import embedded
from .step_rows import check_items, found_rows

MORE_ROWS = 1024  # of a shard than twice its mean, where few rows are spread unevenly


def checked_own_catalog(catalog: object, num_items: int) -> CatalogShard | None:
    """The catalog where ranks share it; None where one rank has all of it."""
    if catalog is None:
        return None
    if not isinstance(catalog, CatalogShard):
        raise ArgumentTypeError("catalog", "a CatalogShard or None", type(catalog).__name__)
    if catalog.num_items != num_items:
        raise ArgumentValueError("num_items", f"{catalog.num_items}, the catalog's", num_items)
    return None if catalog.shard.num_shards == 1 else catalog


def shard_working_set(
    negatives: Sampler, flat: Tensor, target: Tensor, seed: int | Tensor | None, inputs: Tensor | None,
    ignore_index: int, history: History | None, log_q: Tensor | None, catalog: CatalogShard, impl: str,
) -> WorkingSet:  # fmt: skip
    """The working set of this rank's shard, of all ranks' rows."""
    shard, flat = catalog.shard, flat.long()
    sampler = own_sampler(negatives, shard)
    check_own_log_q(negatives, None if log_q is None else spec_of("log_q", log_q), shard.size)
    num_rows, counted = rows_of_each(len(flat), catalog, target), flat != ignore_index
    every = target_places(flat, counted, num_rows, catalog)
    of_all = None
    if inputs is not None:
        of_all = _inputs_of_all(inputs, catalog)
    if history is not None:
        history = history._replace(users=rows_of_all(history.users.reshape(-1).long(), num_rows, catalog))
    plan = plan_group_draw(sampler, len(every), shard.size, IGNORED)
    words = seed_words(folded_seed(seed, shard.index, flat), flat.device, flat)
    bound = plan.num_drawn + 2 * (num_rows + (0 if inputs is None else inputs.numel())) + MORE_ROWS
    found = found_rows(sampler, plan, every, of_all, words, min(bound, shard.size), impl)
    places = torch.where(every == ELSEWHERE, ELSEWHERE, found.target).int()
    log_weight, whole = row_log_weights(
        found.rows.ids, sampler, shard.size, log_q, history is not None or log_q is not None
    )
    if log_q is not None:
        whole = of_shard(whole)
        log_weight = whole.index_select(0, found.rows.ids)
    return WorkingSet(
        found.rows.ids, found.rows.count, owners(flat, counted, shard).view(target.shape), found.inputs, found.drawn,
        found.positions, log_weight, history, whole if history is not None else None, words, sampler, shard.size,
        ignore_index, places,
    )  # fmt: skip


def _inputs_of_all(inputs: Tensor, catalog: CatalogShard) -> Tensor:
    """(P, ...) where in this rank's shard all ranks' inputs are, -1 of those that it does not have."""
    shard = catalog.shard
    if is_read(inputs):
        check_alike("inputs", inputs.numel(), "as many on all ranks", catalog.group)
    every = all_gather(inputs.long(), catalog.group)
    if is_read(inputs):
        check_items("inputs", every[every >= 0], shard.num_items, "a negative number or ")
    is_item = (every >= 0) & (every < shard.num_items)
    return torch.where(is_item, places_in(every, shard, -1), -1)


def input_rows(
    rows: Tensor, working_set: WorkingSet, *, catalog: CatalogShard, dtype: torch.dtype | None = None
) -> Tensor:
    """(..., D) what this rank's inputs embed, zeros of negative ones, from all ranks' ``rows`` (T, D) of their working
    sets; differentiable. A call of all ranks.

    ``dtype``: that of the result, in which rows and their gradients cross the network; by default the rows'. bfloat16
    is half of float32's bytes.

    Raises ArgumentTypeError or ArgumentValueError for a working set without inputs, or made without the ``catalog``,
    and for rows that are not its own.
    """
    if not isinstance(catalog, CatalogShard):
        raise ArgumentTypeError("catalog", "a CatalogShard", type(catalog).__name__)
    places, is_shared = working_set.inputs, catalog.shard.num_shards > 1
    if places is None or (working_set.gathered is not None) != is_shared:
        got = "one without inputs" if places is None else "one of another"
        raise ArgumentValueError("working_set", "one with inputs, made with the catalog", got)
    if rows.ndim != 2 or len(rows) != len(working_set.ids):
        raise ArgumentValueError("rows", f"shape ({len(working_set.ids)}, D)", tuple(rows.shape))
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ArgumentTypeError("dtype", "a floating dtype of torch or None", str(dtype))
    found = embedded(rows, places, dtype)
    return exchanged(found, catalog.group).sum(0) if is_shared else found  # a sum of which one is not zero

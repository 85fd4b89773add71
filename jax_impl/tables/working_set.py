"""The working set of a step: the rows of a catalog that it reads, known before anything is computed."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ...interop import own_settings
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import Spec, check_own_log_q
from ...kernels.negatives.arguments import check_ignore_index as check_64_bits
from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import Sampler
from ...kernels.numbers import as_index
from ...kernels.plan.group_draw import GroupDraw, ListDraw, plan_group_draw
from ..loss.arguments import (
    as_int32,
    check_ignore_index,
    check_impl,
    check_own_history,
    home_of,
    is_array,
    is_known,
    placed,
)
from ..loss.catalog_shard import CatalogShard
from ..loss.list_operands import Tables, row_log_weights, sampler_tables
from ..loss.seeds import as_seed, seed_words
from ..loss.working_set import WorkingSet
from .shard_rows import checked_own_catalog, shard_working_set
from .step_rows import found_rows


def working_set(
    negatives: Sampler,
    target: ArrayLike,
    *,
    num_items: int,
    seed: ArrayLike,
    inputs: ArrayLike | None = None,
    ignore_index: int = -100,
    history: History | None = None,
    log_q: ArrayLike | None = None,
    catalog: CatalogShard | None = None,
    impl: str = "auto",
) -> WorkingSet:
    """The rows that a step with these negatives, targets and inputs reads of a table of ``num_items``.

        ws = working_set(negatives, target, num_items=V, seed=seed, inputs=inputs)
        rows = rows_of(table, ws)                      # (T, D), or any function of ws.ids
        hidden = encoder(rows, ws.inputs)              # what it embeds, by place
        loss = sampled_linear_cross_entropy(hidden, rows, ws.target, ws)

    The draw is that of ``sampled_linear_cross_entropy`` on the whole table with the same ``seed``, and loss and lse
    have the same bits; nothing of the catalog's size is made but a sampler's tables of probabilities, once. T is the
    number of drawn places, targets and inputs together, or ``num_items`` if that is less.

    Args:
        negatives: any sampler of part of the catalog but draws of single rows (``group_size`` 1).
        target: (...) integer items in [0, V), or ``ignore_index``.
        num_items: V.
        seed: as of the loss, which takes none beside a working set.
        inputs: integer items of any shape that the step embeds; negative ones name no row and stay as they are.
        ignore_index: target of rows to leave out; the loss must be given the same.
        log_q: (V,) as of the loss, which takes none beside a working set: the log of how often items are targets, where
            in-batch negatives are.
        history: as of the loss, which takes none beside a working set; of items in [0, V). Beside known probabilities
            it needs them of all V items.
        catalog: the table is this device's part of one that the devices of a mesh's axis share, as of the loss, which
            is given it again. The rows are those of the shard that all shards' rows touch, and T at most what is drawn
            there, twice the targets and inputs of one shard, and 1024: where an uneven catalog has more of on one
            shard, losses are NaN. ``input_rows`` gives what inputs embed; log_q and history are the shard's.
        impl: "triton", "reference", or "auto": decided when the call is lowered, triton on CUDA.

    Raises ArgumentTypeError or ArgumentValueError, naming the argument: for draws of more than half the catalog, of
    which a working set would save nothing, and for negatives of single rows. For arrays in the host's memory and
    outside jit also for items that there are not; elsewhere such a target makes its row NaN.
    """
    num_items = as_index("num_items", num_items)
    check_64_bits(ignore_index)
    check_ignore_index(ignore_index)
    for name, ids in (("target", target), ("inputs", inputs)):
        if ids is not None and not (is_array(ids) and jnp.issubdtype(ids.dtype, jnp.integer)):
            raise ArgumentTypeError(name, "an array of integers", str(getattr(ids, "dtype", type(ids).__name__)))
    if log_q is not None and not is_array(log_q):
        raise ArgumentTypeError("log_q", "an array", type(log_q).__name__)
    check_impl(impl, target)
    catalog = checked_own_catalog(catalog, num_items)
    if catalog is not None:
        return shard_working_set(negatives, target, seed, inputs, ignore_index, history, log_q, catalog, impl)
    plan = plan_group_draw(negatives, int(np.size(target)), num_items, ignore_index)
    check_own_log_q(negatives, None if log_q is None else Spec(tuple(log_q.shape), str(log_q.dtype)), num_items)
    _check_ranges("target", target, num_items, ignore_index, f"{ignore_index}, the ignore_index, or ")
    _check_ranges("inputs", inputs, num_items, None, "a negative number or ")
    check_own_history(history, target, ignore_index, num_items)
    arrays = placed({"target": target, "inputs": inputs, "seed": as_seed(seed), "log_q": log_q, "history": history})
    return _working_set(arrays, sampler_tables(negatives, num_items, home_of(arrays)), negatives, plan, impl)


def _check_ranges(name: str, ids: Any, num_items: int, ignored: int | None, other: str) -> None:
    if ids is None or not is_known(ids):
        return
    values = np.asarray(ids).reshape(-1)
    checked = values[values >= 0 if ignored is None else values != ignored]
    wrong = checked[(checked < 0) | (checked >= num_items)]
    if wrong.size:
        raise ArgumentValueError(name, f"{other}an item in [0, {num_items})", int(wrong[0]))


@partial(jax.jit, static_argnums=(2, 3, 4))
def _working_set(
    arrays: dict[str, Any], tables: Tables, negatives: Sampler, plan: GroupDraw | ListDraw, impl: str
) -> WorkingSet:
    with own_settings():
        target = as_int32(arrays["target"])
        inputs: Any = None if arrays["inputs"] is None else as_int32(arrays["inputs"])
        words, history, num_items = seed_words(arrays["seed"]), arrays["history"], plan.num_items
        named = plan.num_drawn + target.size + (0 if inputs is None else inputs.size)
        flat = jnp.reshape(target, -1)
        found = found_rows(flat, inputs, words, tables.slot_ends, plan, min(named, num_items), impl)
        ids = found.rows.ids
        log_weights = row_log_weights(tables, ids, negatives, num_items, arrays["log_q"], history is not None)
        return WorkingSet(
            ids=ids,
            count=found.rows.count,
            target=found.target.reshape(target.shape),
            inputs=found.inputs,
            drawn=found.drawn,
            positions=found.positions,
            log_weight=log_weights[0],
            history=None if history is None else History(*map(as_int32, history)),
            history_weight=log_weights[1],
            seed=jax.lax.bitcast_convert_type(words[::-1], jnp.uint32),
            gathered=None,
            sampler=negatives,
            num_items=num_items,
            ignore_index=plan.ignore_index,
        )

"""A step that moves the rows of the item table that it touches, and of the other parameters all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import NamedSharding

from ...kernels.draws.permutation import fold_seed
from ...kernels.negatives.objectives import Objective
from ...kernels.negatives.uniform import UniformNegatives
from ...kernels.plan.row_update import RowRule, row_rule
from ...recsys import TrainConfig
from ...recsys.run.optimizer_choices import BETAS, EPS
from ..loss.catalog_shard import CatalogShard
from ..loss.seeds import as_seed, seed_words
from ..loss.working_set import WorkingSet
from ..ranks import AXIS, OF_ALL
from ..stored import is_sharded
from ..tables.optimizers import RowState, start_state
from ..tables.row_set import rows_of
from ..tables.update import update_rows
from ..tables.working_set import working_set

Join = Callable[[Any, Array], Any]


def table_rule(rule: str, config: TrainConfig) -> RowRule:
    """The rule of the item table's optimizer with the constants of the run's."""
    betas = (0.0, 0.0) if rule == "rowwise_adagrad" else BETAS
    return row_rule(rule, betas=betas, eps=EPS, weight_decay=config.weight_decay)  # pyright: ignore[reportArgumentType]


def split_table(parameters: Any) -> tuple[list[Array], Array, Join]:
    """The parameters but the item table, the table, and what puts both together again."""
    named, tree = jax.tree_util.tree_flatten_with_path(parameters)
    (place,) = (i for i, (path, _) in enumerate(named) if "item_table" in jax.tree_util.keystr(path))
    leaves = [leaf for _, leaf in named]

    def join(others: list[Array], table: Array) -> Any:
        return jax.tree.unflatten(tree, [*others[:place], table, *others[place:]])

    return leaves[:place] + leaves[place + 1 :], leaves[place], join


def start_table(parameters: Any, rule: RowRule) -> RowState:
    """The state of the item table's optimizer before the first step, with the table's rows where they are."""
    table = split_table(parameters)[1]
    if not is_sharded(table):
        return start_state(table, rule)
    assert isinstance(table.sharding, NamedSharding)
    of_all, of_items = NamedSharding(table.sharding.mesh, OF_ALL), table.sharding
    places = RowState(of_all, of_items if rule.has_first else None, of_items)  # type: ignore[arg-type]
    return jax.jit(partial(start_state, rule=rule), out_shardings=places)(table)


def rows_touched(
    table: Array, inputs: Array, targets: Array, seed: Array, objective: Objective, catalog: CatalogShard | None
) -> WorkingSet:
    """The working set of a batch; of devices that share the ``catalog`` each one's own of all their batches."""
    assert isinstance(objective.sampler, UniformNegatives)
    num_items = len(table) if catalog is None else catalog.num_items
    return working_set(
        objective.sampler, targets, num_items=num_items, seed=seed, inputs=inputs, catalog=catalog, impl=objective.impl
    )


def gradients_of(
    loss_of: Callable[[list[Array], Array], Array], others: list[Array], table: Array, given: WorkingSet,
    clip_norm: float,
) -> tuple[Array, Any]:  # fmt: skip
    """The loss, and its gradients by the other parameters and by the rows that are touched, scaled down together to
    ``clip_norm`` where there is one."""
    loss, gradients = jax.value_and_grad(loss_of, (0, 1))(others, rows_of(table, given))
    if clip_norm:
        gradients, _ = optax.clip_by_global_norm(clip_norm).update(gradients, optax.EmptyState())
    return loss, gradients


def shared_gradients_of(
    loss_of: Callable[[list[Array], Array], Array], others: list[Array], table: Array, given: WorkingSet,
    clip_norm: float,
) -> tuple[Array, Any]:  # fmt: skip
    """`gradients_of` the sum of all devices' losses, inside ``jax.shard_map``: by what all have, and by the rows of
    this device's part of the table, which those of all devices' losses come to."""
    loss, (of_others, of_rows) = jax.value_and_grad(loss_of, (0, 1))(others, rows_of(table, given))
    loss, of_others = jax.lax.psum((loss, of_others), AXIS)
    if clip_norm:
        of_all_rows = jax.lax.psum(jnp.square(of_rows).sum(), AXIS)
        norm = jnp.sqrt(sum((jnp.square(each).sum() for each in of_others), of_all_rows))
        scaled = jax.tree.map(lambda each: each / norm * clip_norm, (of_others, of_rows))
        of_others, of_rows = jax.tree.map(partial(jnp.where, norm < clip_norm), (of_others, of_rows), scaled)
    return loss, (of_others, of_rows)


def rounding_words(table: Array, seed: int, catalog: CatalogShard | None) -> Array | None:
    """The words by which the rows of a bfloat16 ``table`` are rounded, which is table 0; of devices that share it each
    one's own, as their rows have the same numbers."""
    if table.dtype != jnp.bfloat16:
        return None
    if catalog is None:
        return seed_words(as_seed(fold_seed(seed, 0)))
    of_all = [seed_words(as_seed(fold_seed(fold_seed(seed, each.index), 0))) for each in catalog.shards()]
    return jnp.stack(of_all)[jax.lax.axis_index(AXIS)]


def move_table(
    table: Array, state: RowState, given: WorkingSet, gradient: Array, rate: Array, is_live: Array, rule: RowRule,
    words: Array | None, impl: str,
) -> tuple[Array, RowState]:  # fmt: skip
    """The table and its optimizer's state after a step at ``rate``, which moves nothing unless it ``is_live``; both
    stay where they are in memory. A bfloat16 table is rounded by ``words``."""
    count, step = given.count * is_live, state.step + is_live.astype(jnp.int32)
    table, first, second = update_rows(
        table, state.first, state.second, given.ids, count, gradient, rate.reshape(1), state.step + 1, words, rule, impl
    )
    return table, RowState(step, first, second)

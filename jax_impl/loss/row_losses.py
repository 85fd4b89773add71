"""What every loss on sampled items shares: a call's flat rows computed, weighed and reduced, as one program."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ...interop import as_varying, in_auto_axes, own_settings, varying_axes
from ...kernels.draws.draw import Draw, given_ids, on_rows
from ...kernels.errors import ArgumentTypeError
from ...kernels.negatives.arguments import Options, check_working_set, correction_of
from ...kernels.negatives.base import Negatives
from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import Sampler
from ...kernels.plan.problem import Choices
from . import ops
from .arguments import Arguments, as_int32, checked_arguments, home_of, is_array, num_items_of, placed
from .list_operands import Tables, list_operands, of_shard, sampler_tables
from .operands import Operands
from .rows import rows
from .seeds import seed_words
from .sums import sum_of_rows
from .working_set import WorkingSet

# (the operands but candidates, the arguments, what is static) -> each row's loss, its lse if there is one, and whether
# it counts
RowLosses = Callable[[Operands, Arguments, Any], tuple[Array, Array | None, Array]]


@dataclass(frozen=True)
class Sampled:
    """What is static in a call on sampled items or explicit ids."""

    options: Options
    draw: Draw | None
    choices: Choices


def evaluate(row_losses: RowLosses, arguments: Arguments, static: Any) -> tuple[Array, ...]:
    """The reduced loss and with ``return_lse`` the lse (...), by the arguments' ``row_losses``; ``static`` has
    ``options``."""
    return _evaluate(row_losses, placed(arguments), static)


# One program a call, eagerly too: nothing of it is dispatched, transferred or checked for NaN by itself.
@functools.partial(jax.jit, static_argnames=("row_losses", "static"))
def _evaluate(row_losses: RowLosses, arguments: Arguments, static: Any) -> tuple[Array, ...]:
    options: Options = static.options
    with own_settings():
        arguments = arguments._replace(
            target=as_int32(arguments.target),
            ids=None if arguments.ids is None else as_int32(arguments.ids),
            seed=seed_words(arguments.seed),
            history=None if arguments.history is None else tuple(map(as_int32, arguments.history)),
        )  # type: ignore[arg-type]

        def flat(arguments: Arguments) -> tuple[Array, ...]:
            shape, dim = arguments.target.shape, arguments.input.shape[-1]
            x = Operands(
                input=arguments.input.reshape(-1, dim),
                weight=arguments.weight,
                bias=arguments.bias,
                scale=arguments.scale.astype(jnp.float32).reshape(1),
                target=arguments.target.reshape(-1),
                ids=None,
                seed=arguments.seed,
            )
            loss, lse, counts = row_losses(x, arguments, static)
            reduced = _reduce(loss, counts, arguments.sample_weight, options)
            each = (reduced.reshape(shape) if options.reduction == "none" else reduced, lse)
            return tuple(values.reshape(shape) if i else values for i, values in enumerate(each) if values is not None)

        like = arguments.target if options.reduction == "none" else None
        return in_auto_axes(flat, arguments, (like, arguments.target) if options.return_lse else (like,))


def _reduce(row_values: Array, counts: Array, sample_weight: Array | None, options: Options) -> Array:
    """Weights and reduction over the rows that count; the others hold zeros."""
    weights = None
    if sample_weight is not None:
        weights = jnp.where(counts, sample_weight.reshape(-1).astype(jnp.float32), 0.0)
        # an ignored row's zero must stay one whatever its weight
        row_values = jnp.where(counts, row_values * weights, 0.0)
    if options.reduction == "none":
        return row_values
    total = sum_of_rows(row_values)
    if options.reduction == "sum":
        return total
    mass = counts.sum(dtype=jnp.int32).astype(jnp.float32) if weights is None else sum_of_rows(weights)
    return jnp.where(mass == 0, total * 0.0, total / jnp.where(mass == 0, 1.0, mass))


def no_rows(x: Operands) -> Array:
    """The losses (0,) of an empty batch."""
    return x.target.astype(jnp.float32)


def sampled_losses(
    input: ArrayLike, linear_weight: ArrayLike, target: ArrayLike, negatives: Sampler | WorkingSet | ArrayLike,
    options: Options, *,
    linear_bias: ArrayLike | None, sample_weight: ArrayLike | None, logit_scale: ArrayLike, seed: ArrayLike | None,
    log_q: ArrayLike | None = None, history: History | None = None, positive_weight: float | None = None,
) -> tuple[Array, ...]:  # fmt: skip
    """The reduced loss, and with ``return_lse`` the lse (...) of each row, fp32; by a public loss's arguments.

    ``positive_weight``: of the positive's term in binary cross-entropy, which has no lse; None for the softmax.
    """
    given = negatives if isinstance(negatives, WorkingSet) else None
    sampler = negatives if isinstance(negatives, Negatives) else None
    ids = None if sampler is not None or given is not None else negatives
    if ids is not None and not is_array(ids):
        raise ArgumentTypeError("negatives", "a sampler, a working set or an integer array", type(ids).__name__)
    num_items = num_items_of(linear_weight)
    if given is not None:
        check_working_set(given, num_items, np.shape(target), seed=seed, log_q=log_q, history=history)
        sampler, num_items = given.sampler, given.num_items
    draw = sampler.draw(num_items) if sampler is not None else None
    arguments = checked_arguments(
        input, linear_weight, target, ids, options,
        linear_bias=linear_bias, sample_weight=sample_weight, logit_scale=logit_scale,
        seed=seed, draws=given is None and draw is not None and draw.random, log_q=log_q, history=history,
    )  # fmt: skip
    if given is not None and draw is not None:
        draw, tables, known = on_rows(draw, num_items), Tables(), given.log_weight
        arguments = arguments._replace(seed=given.seed, given=given)
    else:
        tables = sampler_tables(sampler, num_items, home_of(arguments))
        known = tables.log_weight if log_q is None else log_q
    choices = Choices(
        softcap=options.softcap,
        remove_accidental_hits=options.remove_accidental_hits,
        ignore_index=options.ignore_index,
        scale_grad=is_array(logit_scale),
        positive_weight=positive_weight,
        correction=correction_of(draw or given_ids((1,)), known, options, positive_weight),
        is_shard=False,
    )
    return evaluate(sampled_rows, arguments._replace(tables=tables), Sampled(options, draw, choices))


def sampled_rows(x: Operands, arguments: Arguments, static: Sampled) -> tuple[Array, Array | None, Array]:
    """The `RowLosses` of calls on sampled items."""
    options, draw, ids, given, num_items = static.options, static.draw, arguments.ids, arguments.given, len(x.weight)
    counts = x.target != options.ignore_index
    share = 1.0 if draw is None else draw.batch_share
    if draw is not None and draw.targets:  # as good as ids that are given
        ids = jnp.where(counts & (x.target >= 0) & (x.target < num_items), x.target, -1)
        draw = None if given is None else replace(given_ids(ids.shape), catalog=given.num_items)
    elif ids is not None and ids.ndim > 1:
        ids = ids.reshape(-1, ids.shape[-1])
    if given is None:
        slot_ends, log_weight = list_operands(arguments.tables, share, num_items, arguments.log_q)
        if static.choices.is_shard and arguments.log_q is not None:
            log_weight = of_shard(log_weight)
    else:
        slot_ends, log_weight, ids = None, given.log_weight, ids if given.drawn is None else given.drawn
        x = x._replace(positions=given.positions)
    weighted = static.choices.correction == "weighted"
    x = x._replace(ids=ids, log_weight=log_weight if weighted else None, slot_ends=slot_ends)
    history = arguments.history
    if given is not None and given.history is not None:
        history = given.history
        x = x._replace(row_ids=given.ids, history_weight=given.history_weight if weighted else None)
    if history is not None:
        users, offsets, items = history
        x = x._replace(users=users.reshape(-1), history_offsets=offsets, history_items=items)
    if x.target.size == 0:
        return no_rows(x), no_rows(x) if options.return_lse else None, counts
    loss, lse = rows(as_varying(x, varying_axes(x)), ops.Options(draw, static.choices, options.impl))
    return loss, lse if options.return_lse else None, counts

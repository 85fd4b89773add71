"""The rows of a loss on a catalog that is sharded over ranks: every rank scores all ranks' rows against its own items.

No gradient of a table crosses the network. Hidden states and targets are gathered; what a shard has of each row, its
target's score and the logsumexp of its negatives, goes to the rank whose row it is, and their gradients go back.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...kernels.draws.shard import Shard
from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import IGNORED, Options, check_arrays, check_working_set
from ...kernels.negatives.base import Negatives, kept_with_sampler
from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import Sampler
from .catalog_shard import CatalogShard
from .exchange import exchanged, once
from .gathered_rows import owners, rows_of_all, rows_of_each, target_places
from .reference import softplus
from .row_losses import as_autocast, comparable, history_specs, optional_spec, row_losses, spec_of
from .seeds import folded_seed
from .working_set import WorkingSet


@kept_with_sampler
def _kept(sampler: Negatives, shard: Shard) -> Negatives:
    return sampler.of_shard(shard)


def own_sampler(sampler: Negatives, shard: Shard) -> Sampler:
    """What draws a shard's part of a sampler's negatives, made once."""
    return _own(sampler, shard)  # type: ignore[return-value]


def _own(sampler: Negatives, shard: Shard) -> Negatives:
    if not torch.compiler.is_compiling():
        return _kept(sampler, shard)
    lists = sampler.draw(shard.num_items).lists
    if lists is None or not lists.slot_parts:
        return sampler.of_shard(shard)
    disabled: Any = torch.compiler.disable(_kept)  # tables of weights end a graph
    return disabled(sampler, shard)


class _Joined(torch.autograd.Function):
    """loss and lse (N,) of rows from the shards' parts (P, 2, N), the score z_0 of the row's target where the shard
    ``owner`` (N,) has it, and the logsumexp lse_r of the shard's negatives.

    With M = logsumexp of the lse_r in the order of shards and gap = M - z_0: ``loss = softplus(gap)``, ``lse = z_0 +
    loss``, or where the negatives are the larger ones M + softplus(-gap). With 1 - p_0 = sigmoid(gap), u and v
    upstream: dz_0 = v p_0 - u (1 - p_0), dlse_r = (u + v) (1 - p_0) exp(lse_r - M). Where no negative weighs anything
    the loss is 0, as in a call on the whole catalog. A row that is ignored has owner -1.
    """

    @staticmethod
    def forward(ctx: Any, parts: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        scores, lses = parts.unbind(1)
        counted, is_owner = owner >= 0, owner == torch.arange(len(parts), device=owner.device)[:, None]
        positive = torch.where(is_owner, scores, 0.0).sum(0)
        positive = torch.where(positive == math.inf, math.nan, positive)
        peak = lses.amax(0)
        weighs = peak != -math.inf
        peak = torch.where(weighs, peak, 0.0)  # -inf - -inf would be NaN
        masses = torch.exp(lses - peak)
        total = torch.where(weighs, masses.sum(0), 1.0)
        log_total = torch.log(total)
        gap = torch.where(weighs | positive.isnan(), (peak - positive) + log_total, -math.inf)
        loss, excess = softplus(gap), softplus(-gap)
        lse = torch.where(gap > 0, peak + (log_total + excess), positive + loss)
        ctx.save_for_backward(masses / total, gap, is_owner, counted, parts)
        return torch.where(counted, loss, 0.0), torch.where(counted, lse, 0.0)

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, grad_lse: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        shares, gap, is_owner, counted, parts = ctx.saved_tensors
        of_positive = grad_lse * torch.sigmoid(-gap) - grad_loss * torch.sigmoid(gap)
        of_negatives = (grad_loss + grad_lse) * torch.sigmoid(gap) * shares
        grads = torch.stack([torch.where(is_owner, of_positive, 0.0), of_negatives], 1)
        return once(torch.where(counted, grads, 0.0), parts), None


def checked_catalog(catalog: object, linear_weight: Tensor, negatives: object) -> CatalogShard | None:
    """The catalog where it is sharded; None where it is the table, whole: one rank's call is the plain one."""
    if catalog is None:
        return None
    if not isinstance(catalog, CatalogShard):
        raise ArgumentTypeError("catalog", "a CatalogShard or None", type(catalog).__name__)
    shard, shape = catalog.shard, spec_of("linear_weight", linear_weight).shape
    if len(shape) == 2 and shape[0] != shard.size and not isinstance(negatives, WorkingSet):
        own = f"the {shard.size} of {shard.num_items} items that shard {shard.index} of {shard.num_shards} has"
        raise ArgumentValueError("linear_weight", f"{own}, rows of it", shape)
    return None if shard.num_shards == 1 else catalog


def sharded_row_losses(
    input: Tensor, linear_weight: Tensor, target: Tensor, negatives: object, options: Options, *,
    linear_bias: Tensor | None, sample_weight: Tensor | None, logit_scale: float | Tensor, seed: int | Tensor | None,
    log_q: Tensor | None, history: History | None, catalog: CatalogShard,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """``row_losses`` of this rank's rows, where ``linear_weight``, ``linear_bias``, ``log_q`` and the items of
    ``history`` are its shard's."""
    shard, given = catalog.shard, negatives if isinstance(negatives, WorkingSet) else None
    if given is None and not isinstance(negatives, Negatives):
        expected = "a sampler or a working set beside a sharded catalog"
        raise ArgumentTypeError("negatives", expected, type(negatives).__name__)
    if torch._C._are_functorch_transforms_active():
        raise ArgumentTypeError("catalog", "None under torch.func's transforms", "a CatalogShard")
    if given is not None and given.gathered is None:
        raise ArgumentValueError("negatives", "a working set that was made with the catalog", "one without")
    input = as_autocast(input)
    check_arrays(
        spec_of("input", input), spec_of("linear_weight", linear_weight), spec_of("target", target), None,
        optional_spec("linear_bias", linear_bias), optional_spec("sample_weight", sample_weight),
        optional_spec("log_q", log_q), history_specs(history),
    )  # fmt: skip
    own_target = comparable(target, options.ignore_index).reshape(-1).long()
    num_rows = rows_of_each(len(own_target), catalog, input)
    counted = own_target != options.ignore_index
    shared = {"linear_bias": linear_bias, "logit_scale": logit_scale, "log_q": log_q, "is_shard": True}
    if given is not None and given.gathered is not None:
        check_working_set(given, len(linear_weight), target.shape, seed=seed, log_q=log_q, history=history)
        places, owner, sampler = given.gathered, own_target, given._replace(target=given.gathered)
    else:
        sampler = own_sampler(negatives, shard)  # type: ignore[arg-type]
        if sampler.draw(shard.size).random:
            seed = folded_seed(seed, shard.index, input)
        owner = owners(own_target, counted, shard)
        places = target_places(own_target, counted, num_rows, catalog)
    if history is not None:
        history = history._replace(users=rows_of_all(history.users.reshape(-1).long(), num_rows, catalog))
    if num_rows == 0:
        return row_losses(input, linear_weight, target, sampler, options, sample_weight=None, seed=seed,
                          history=history, **shared)  # type: ignore[arg-type] # fmt: skip
    positive, of_negatives, _ = row_losses(
        rows_of_all(input.reshape(-1, input.shape[-1]), num_rows, catalog), linear_weight, places,
        sampler, replace(options, ignore_index=IGNORED), sample_weight=None, seed=seed, history=history,
        **shared,  # type: ignore[arg-type]
    )  # fmt: skip
    parts = torch.stack([positive.view(-1, num_rows), of_negatives.view(-1, num_rows)], 1)
    parts = exchanged(parts, catalog.group)
    loss, lse = _Joined.apply(parts[:, :, : len(owner)], owner)  # type: ignore[misc]
    return loss.view(target.shape), lse.view(target.shape), counted.sum(dtype=torch.float32).clamp(min=1)

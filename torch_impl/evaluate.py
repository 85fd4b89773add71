"""Ranks of held-out items over the full catalog, computed on the model's device in chunks."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..recsys import Ragged, eval_batches, ranking_metrics
from .sequence_model import SequenceModel

CHUNK = 8192
"""Catalog items scored at once: memory is rows x CHUNK scores, whatever the catalog's size."""


def evaluate(
    model: SequenceModel,
    histories: Ragged,
    targets: npt.NDArray[np.int32],
    *,
    batch_size: int = 128,
    chunk: int = CHUNK,
) -> dict[str, float]:
    """Returns NDCG@10, HR@10 and MRR@10 of ``targets`` (rows,) after ``histories``, dropout off.

    Seen items compete too. The last ``max_length`` items of a history count.
    """
    was_training = model.training
    model.eval()
    device = model.item_table.device
    ranks = [
        batch_ranks(model, torch.from_numpy(batch.inputs).to(device), torch.from_numpy(batch.target).to(device), chunk)[
            : batch.count
        ]
        for batch in eval_batches(histories, targets, batch_size=batch_size, max_length=model.config.max_length)
    ]
    model.train(was_training)
    return ranking_metrics(torch.cat(ranks).cpu().numpy())


@torch.no_grad()
def batch_ranks(model: SequenceModel, inputs: Tensor, target: Tensor, chunk: int = CHUNK) -> Tensor:
    """Returns the rank (B,) of ``target`` (B,) after the sequences ``inputs`` (B, L)."""
    return target_ranks(model.next_item_hidden(inputs), model.item_table, target, chunk)


@torch.no_grad()
def target_ranks(hidden: Tensor, table: Tensor, target: Tensor, chunk: int = CHUNK) -> Tensor:
    """Rank of each target among the scores ``hidden @ table.T``: (B,) int64, 1 is best, in float32.

    ``rank = 1 + #(score > target's) + #(score == target's and id < target)``, NaN above every number, and V
    + 1 for a NaN target score: the rule of ``recsys.target_ranks``. ``hidden`` (B, D), ``table`` (V, D),
    ``target`` (B,); negative targets mark rows that only fill the batch, and their rank means nothing.
    """
    target = target.long().clamp_min(0)[:, None]
    # Scored in the same products as its rivals, so that equal rows of the table tie exactly.
    target_score = torch.empty_like(target, dtype=torch.float32)
    for begin, scores in score_chunks(hidden, table, chunk):
        here = (begin <= target) & (target < begin + scores.shape[1])
        column = (target - begin).clamp(0, scores.shape[1] - 1)
        target_score = torch.where(here, scores.gather(1, column), target_score)
    rank = torch.ones(len(target), dtype=torch.int64, device=target.device)
    for begin, scores in score_chunks(hidden, table, chunk):
        ids = torch.arange(begin, begin + scores.shape[1], device=target.device)
        ahead = (scores > target_score) | scores.isnan() | ((scores == target_score) & (ids < target))
        rank += ahead.sum(dim=1)
    return torch.where(target_score[:, 0].isnan(), len(table) + 1, rank)


def score_chunks(hidden: Tensor, table: Tensor, chunk: int) -> Iterator[tuple[int, Tensor]]:
    """Yields (first id, float32 scores (B, <= chunk)) over the catalog, autocast off."""
    with torch.autocast(hidden.device.type, enabled=False):
        for begin in range(0, len(table), chunk):
            yield begin, hidden.float() @ table[begin : begin + chunk].float().T

"""Metrics of held-out items over the full catalog, ranked on the model's device."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...recsys import EvalBatch, Ragged
from ...recsys.serving.evaluation import evaluate_batches
from ..models.sequence_model import SequenceModel
from .ranking import Seen, rank_and_top


def evaluate(
    model: SequenceModel,
    histories: Ragged,
    targets: npt.NDArray[np.int32],
    *,
    chunk: int | None = None,
    **options: Any,
) -> dict[str, float]:
    """Returns the metrics of `evaluate_batches`, whose ``options`` it takes, dropout off.

    Items are scored by kernels on a GPU, else 32768 at once; a ``chunk`` scores so many at once in plain torch.
    """
    was_training = model.training
    model.eval()
    device = model.item_table.device
    rows = model.item_rows().detach()

    def rank(batch: EvalBatch, k: int) -> tuple[npt.NDArray, npt.NDArray]:
        inputs, target = (torch.from_numpy(ids).to(device) for ids in (batch.inputs, batch.target))
        seen = Seen.of(batch.seen, len(inputs), device)
        ranks, top = batch_ranking(model, rows, inputs, target, k, chunk, seen)
        return ranks.cpu().numpy(), top.cpu().numpy()

    metrics = evaluate_batches(rank, model.config, histories, targets, **options)
    model.train(was_training)
    return metrics


@torch.no_grad()
def batch_ranking(
    model: SequenceModel,
    rows: Tensor,
    inputs: Tensor,
    target: Tensor,
    k: int,
    chunk: int | None = None,
    seen: Seen | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the rank (B,) of ``target`` (B,) after the sequences ``inputs`` (B, L), and the k best items (B, k).

    ``rows`` (V, D) are ``model.item_rows()``, computed once for all batches."""
    return rank_and_top(model.next_item_hidden(inputs, rows), rows, target, k, chunk, seen)

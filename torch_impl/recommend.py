"""The best next items for given histories, over the full catalog."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..recsys import ConfigError, Ragged, last_items
from .evaluate import CHUNK, score_chunks
from .sequence_model import SequenceModel


@torch.no_grad()
def recommend(
    model: SequenceModel,
    histories: Ragged | Sequence[Sequence[int] | npt.NDArray[np.integer]],
    k: int,
    *,
    batch_size: int = 128,
    chunk: int = CHUNK,
) -> npt.NDArray[np.int64]:
    """Returns the ids (rows, k) of the k items with the highest scores after each history, best first.

    Equal scores go to the lower id first, as in the metrics; NaN scores come last. Items already in a history
    may be recommended again. Raises ``ConfigError`` unless 1 <= k <= V and every id is in [0, V).
    """
    num_items, max_length = model.config.num_items, model.config.max_length
    if not 1 <= k <= num_items:
        raise ConfigError(f"k: expected an integer from 1 to {num_items}, got {k}")
    rows = histories if isinstance(histories, Ragged) else Ragged.from_rows(histories)
    if len(rows.values) and (rows.values.min() < 0 or rows.values.max() >= num_items):
        raise ConfigError(f"histories: expected ids in [0, {num_items}), got {rows.values.min()}..{rows.values.max()}")
    was_training = model.training
    model.eval()
    device = model.item_table.device
    top = np.empty((len(rows), k), dtype=np.int64)
    for begin in range(0, len(rows), batch_size):
        chosen = np.arange(begin, min(begin + batch_size, len(rows)))
        inputs = torch.from_numpy(last_items(rows, chosen, width=max_length, height=len(chosen))).to(device)
        top[chosen] = top_items(model.next_item_hidden(inputs), model.item_table, k, chunk).cpu().numpy()
    model.train(was_training)
    return top


def top_items(hidden: Tensor, table: Tensor, k: int, chunk: int = CHUNK) -> Tensor:
    """Ids (B, k) int64 of the highest scores ``hidden @ table.T``, ties by lower id."""
    best = torch.empty(len(hidden), 0, dtype=torch.int64, device=hidden.device)
    for begin, scores in score_chunks(hidden, table, chunk):
        ids = torch.arange(begin, begin + scores.shape[1], device=hidden.device)
        merged = torch.cat([best, _sort_keys(scores, ids)], dim=1)
        best = merged.topk(min(k, merged.shape[1]), dim=1).values
    return 0x7FFFFFFF - (best & 0x7FFFFFFF)


def _sort_keys(scores: Tensor, ids: Tensor) -> Tensor:
    """Distinct int64 keys that order by score and then by lower id (``torch.topk`` breaks ties as it likes).

    The high word is the score's bits, made to order like the number; the low 31 bits are the id's complement.
    """
    finite = torch.where(scores.isnan(), -torch.inf, scores) + 0.0  # + 0.0 turns -0.0 into 0.0, its equal
    bits = finite.view(torch.int32)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.long() << 31) | (0x7FFFFFFF - ids)

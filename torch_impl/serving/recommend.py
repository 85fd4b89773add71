"""The best next items for given histories, over the full catalog."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ...recsys import ConfigError, Ragged, fewest_unseen, last_items, seen_items
from ..models.sequence_model import SequenceModel
from .ranking import CHUNK, Seen, top_items


@torch.no_grad()
def recommend(
    model: SequenceModel,
    histories: Ragged | Sequence[Sequence[int] | npt.NDArray[np.integer]],
    k: int,
    *,
    filter_seen: bool = False,
    batch_size: int = 128,
    chunk: int = CHUNK,
) -> npt.NDArray[np.int64]:
    """Returns the ids (rows, k) of the k items with the highest scores after each history, best first.

    Equal scores go to the lower id first, as in the metrics; NaN scores come last. Items already in a history
    may be recommended again, unless ``filter_seen`` leaves out all of them, however long the history. Raises
    ``ConfigError`` unless every id is in [0, V), 1 <= k <= V and, with ``filter_seen``, k items are left to every row.
    """
    num_items, max_length = model.config.num_items, model.config.max_length
    if not 1 <= k <= num_items:
        raise ConfigError(f"k: expected an integer from 1 to {num_items}, got {k}")
    sequences = histories if isinstance(histories, Ragged) else Ragged.from_rows(histories)
    if len(sequences.values) and (sequences.values.min() < 0 or sequences.values.max() >= num_items):
        raise ConfigError(
            f"histories: expected ids in [0, {num_items}), got {sequences.values.min()}..{sequences.values.max()}"
        )
    if filter_seen and k > (unseen := fewest_unseen(sequences, num_items)):
        raise ConfigError(
            f"k: expected at most {unseen} with filter_seen, the items that a history has not seen, got {k}"
        )
    was_training = model.training
    model.eval()
    device = model.item_table.device
    rows = model.item_rows()
    top = np.empty((len(sequences), k), dtype=np.int64)
    for begin in range(0, len(sequences), batch_size):
        chosen = np.arange(begin, min(begin + batch_size, len(sequences)))
        inputs = torch.from_numpy(last_items(sequences, chosen, width=max_length, height=len(chosen))).to(device)
        seen = Seen.of(seen_items(sequences, chosen), num_items, device, chunk) if filter_seen else None
        top[chosen] = top_items(model.next_item_hidden(inputs, rows), rows, k, chunk, seen).cpu().numpy()
    model.train(was_training)
    return top

"""The best next items for given histories, over the full catalog."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ...recsys import SeenItems
from ...recsys.serving.candidates import Ids, candidates_of
from ...recsys.serving.evaluation import Histories, recommend_batches
from ..models.sequence_model import SequenceModel
from .ranking import Seen, top_items


@torch.no_grad()
def recommend(
    model: SequenceModel,
    histories: Histories,
    k: int,
    *,
    filter_seen: bool = False,
    batch_size: int = 128,
    chunk: int | None = None,
    candidates: Ids | None = None,
    excluded: Ids | None = None,
) -> npt.NDArray[np.int64]:
    """Returns the ids (rows, k) of the k best items after each history, as `recommend_batches` says, dropout off.

    ``candidates`` and ``excluded`` are ids of items (n,): only those, and none of these.
    Items are scored by kernels on a GPU, else 32768 at once; a ``chunk`` scores so many at once in plain torch.
    """
    was_training = model.training
    model.eval()
    device = model.item_table.device
    rows = model.item_rows()
    mask = candidates_of(len(rows), candidates, excluded)
    chosen = None if mask is None else torch.from_numpy(mask).to(device)

    def top(inputs: npt.NDArray[np.int32], seen: SeenItems | None) -> npt.NDArray[np.int64]:
        left_out = Seen.of(seen, len(inputs), device)
        hidden = model.next_item_hidden(torch.from_numpy(inputs).to(device), rows)
        return top_items(hidden, rows, k, chunk, left_out, chosen).cpu().numpy()

    options = {"filter_seen": filter_seen, "batch_size": batch_size}
    best = recommend_batches(top, model.config, histories, k, **options, candidates=mask)
    model.train(was_training)
    return best

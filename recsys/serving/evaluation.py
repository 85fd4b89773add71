"""The loops of evaluation and recommendation over a framework's ranking of one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged
from ..errors import ConfigError
from ..protocol.batches import EvalBatch, eval_batches, last_items
from ..protocol.list_metrics import MetricsTally
from ..protocol.seen import SeenItems, fewest_unseen, seen_items
from ..run.model_config import ModelConfig

Histories = Ragged | Sequence[Sequence[int] | npt.NDArray[np.integer]]

Rank = Callable[[EvalBatch, int], tuple[npt.ArrayLike, npt.ArrayLike]]
"""``rank(batch, k)``: the ranks (B,) of the batch's targets and the k best items (B, k)."""

Top = Callable[[npt.NDArray[np.int32], SeenItems | None], npt.ArrayLike]
"""``top(inputs (B, L), seen)``: the best items (B, k) that ``seen`` does not leave out."""


def evaluate_batches(
    rank: Rank,
    model: ModelConfig,
    histories: Ragged,
    targets: npt.NDArray[np.int32],
    *,
    cutoffs: Sequence[int] = (10,),
    filter_seen: bool = False,
    information: npt.NDArray[np.float64] | None = None,
    batch_size: int = 128,
) -> dict[str, float]:
    """NDCG, HR, MRR, Recall, MAP, Coverage and Surprisal, ``ndcg@10`` and so on, for each k of ``cutoffs``.

    Ranks ``targets`` (rows,) after the last ``max_length`` items of each of ``histories``. Seen items compete too;
    ``filter_seen`` leaves all items of a history, however long, out of its ranking and top list, except for the target.
    ``information`` (V,) float64 is ``self_information`` of the training part; without it there is no Surprisal. Raises
    ``ConfigError`` for cutoffs below 1 and information of another catalog.
    """
    tally = MetricsTally(model.num_items, cutoffs=cutoffs, information=information)
    for batch in eval_batches(
        histories, targets, batch_size=batch_size, max_length=model.max_length, filter_seen=filter_seen
    ):
        ranks, top = map(np.asarray, rank(batch, tally.width))
        tally.add(ranks[: batch.count], top[: batch.count])
    return tally.metrics()


def recommend_batches(
    top: Top, model: ModelConfig, histories: Histories, k: int, *, filter_seen: bool = False, batch_size: int = 128
) -> npt.NDArray[np.int64]:
    """The ids (rows, k) of the k items with the highest scores after each history, best first.

    Equal scores go to the lower id first, as in the metrics; NaN scores come last. Items already in a history may be
    recommended again, unless ``filter_seen`` leaves out all of them, however long the history. Raises ``ConfigError``
    unless every id is in [0, V), 1 <= k <= V and, with ``filter_seen``, k items are left to every row.
    """
    num_items = model.num_items
    if not 1 <= k <= num_items:
        raise ConfigError(f"k: expected an integer from 1 to {num_items}, got {k}")
    sequences = histories if isinstance(histories, Ragged) else Ragged.from_rows(histories)
    values = sequences.values
    if len(values) and (values.min() < 0 or values.max() >= num_items):
        raise ConfigError(f"histories: expected ids in [0, {num_items}), got {values.min()}..{values.max()}")
    if filter_seen and k > (unseen := fewest_unseen(sequences, num_items)):
        raise ConfigError(
            f"k: expected at most {unseen} with filter_seen, the items that a history has not seen, got {k}"
        )
    # All batches have the same shape: JAX compiles once.
    height = min(batch_size, max(len(sequences), 1))
    best = np.empty((len(sequences), k), dtype=np.int64)
    for begin in range(0, len(sequences), height):
        chosen = np.arange(begin, min(begin + height, len(sequences)))
        inputs = last_items(sequences, chosen, width=model.max_length, height=height)
        seen = seen_items(sequences, chosen) if filter_seen else None
        best[chosen] = np.asarray(top(inputs, seen))[: len(chosen)]
    return best

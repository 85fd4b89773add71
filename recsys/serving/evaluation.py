"""The loops of evaluation and recommendation over a framework's ranking of one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged
from ..errors import ConfigError
from ..protocol.batches import EvalBatch, eval_batches, last_items
from ..protocol.list_metrics import check_tally, tallied_metrics
from ..protocol.seen import Room, SeenItems, fewest_unseen, seen_items
from ..run.model_config import ModelConfig

Histories = Ragged | Sequence[Sequence[int] | npt.NDArray[np.integer]]


class Ranker(Protocol):
    """Ranks batches with a model and keeps what the metrics are made of, on the model's device."""

    def start(self, cutoffs: tuple[int, ...], num_batches: int) -> None:
        """Begins an evaluation, of the model as it is now."""
        ...

    def add(self, batch: EvalBatch) -> None:
        """Ranks the targets of a batch and counts the items of its top lists."""
        ...

    def found(self) -> tuple[npt.NDArray[np.integer], Mapping[int, npt.NDArray[np.integer]]]:
        """The ranks (rows,) of all targets, and by cutoff k the lists (V,) that have each item among their first k."""
        ...


TakeRanks = Callable[[npt.NDArray[np.integer]], object]
"""Is given the ranks (rows,) of an evaluation's targets in their order, from 1, once they are found."""

Top = Callable[[npt.NDArray[np.int32], SeenItems | None], tuple[npt.ArrayLike, npt.ArrayLike]]
"""``top(inputs (B, L), seen)``: the best items (B, k) that ``seen`` does not leave out, and their scores (B, k)."""


class HeldOut:
    """The batches of ``histories`` and the ``targets`` that follow them; if ``is_small`` they are made once."""

    def __init__(
        self,
        histories: Ragged,
        targets: npt.NDArray[np.int32],
        *,
        max_length: int,
        filter_seen: bool = False,
        batch_size: int = 128,
    ) -> None:
        # All batches have the same shape: JAX compiles once.
        size = min(batch_size, max(len(histories), 1))
        self._make = partial(
            eval_batches, histories, targets, batch_size=size, max_length=max_length, filter_seen=filter_seen
        )
        self.is_small = len(histories) * max_length <= _MOST_KEPT
        self._kept: list[EvalBatch] | None = None
        self._num_batches = -(-len(histories) // size)

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[EvalBatch]:
        if not self.is_small:
            return self._make()
        if self._kept is None:
            self._kept = list(self._make())
        return iter(self._kept)


_MOST_KEPT = 2**26  # ids, 256 MiB


def start_evaluation(
    ranker: Ranker,
    batches: HeldOut,
    num_items: int,
    *,
    cutoffs: Sequence[int] = (10,),
    information: npt.NDArray[np.float64] | None = None,
    take_ranks: TakeRanks | None = None,
) -> Callable[[], dict[str, float]]:
    """Gives the device all its work and returns what waits for the metrics.

    NDCG, HR, MRR, Recall, MAP, Coverage and Surprisal, ``ndcg@10`` and so on, for each k of ``cutoffs``.

    Ranks the targets after the last ``max_length`` items of each history, as ``ranker`` does. Seen items compete too;
    ``filter_seen`` leaves all items of a history, however long, out of its ranking and top list, except for the target.
    ``information`` (V,) float64 is ``self_information`` of the training part; without it there is no Surprisal.
    ``take_ranks`` is given the ranks that the metrics are made of. Raises ``ConfigError`` for cutoffs below 1 and
    information of another catalog.
    """
    check_tally(num_items, cutoffs, information)
    ranker.start(tuple(cutoffs), len(batches))
    for batch in batches:
        ranker.add(batch)

    def metrics() -> dict[str, float]:
        ranks, occurrences = ranker.found()
        if take_ranks is not None:
            take_ranks(ranks)
        return tallied_metrics(ranks, occurrences, information)

    return metrics


def recommend_batches(
    top: Top,
    model: ModelConfig,
    histories: Histories,
    k: int,
    *,
    filter_seen: bool = False,
    batch_size: int = 128,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The ids (rows, k) of the k items with the highest scores after each history, best first, and their scores
    (rows, k).

    Equal scores go to the lower id first, as in the metrics; NaN scores come last. Items already in a history may be
    recommended again, unless ``filter_seen`` leaves out all of them, however long the history. Places for which no item
    is left hold `NO_ITEM` with the score -inf. Raises ``ConfigError`` unless every id is in [0, V) and 1 <= k <= V.
    """
    sequences = _checked(histories, k, model.num_items, model.num_items)
    # All batches have the same shape, and calls few: JAX compiles once for each.
    height = min(batch_size, 1 << max(len(sequences) - 1, 0).bit_length())
    room = Room.of(sequences.lengths, height)
    best = np.empty((len(sequences), k), dtype=np.int64)
    scores = np.empty((len(sequences), k), dtype=np.float32)
    for begin in range(0, len(sequences), height):
        chosen = np.arange(begin, min(begin + height, len(sequences)))
        inputs = last_items(sequences, chosen, width=model.max_length, height=height)
        seen = seen_items(sequences, chosen, room=room) if filter_seen else None
        best[chosen], scores[chosen] = (np.asarray(found)[: len(chosen)] for found in top(inputs, seen))
    return best, scores


def require_full_lists(
    histories: Histories,
    k: int,
    num_items: int,
    *,
    filter_seen: bool = False,
    candidates: npt.NDArray[np.bool_] | None = None,
) -> Ragged:
    """The histories; raises ``ConfigError`` unless every id is in [0, V), 1 <= k <= the number of ``candidates`` (V,),
    by default all items, and, with ``filter_seen``, k of them are left to every row."""
    most = num_items if candidates is None else int(candidates.sum())
    sequences = _checked(histories, k, num_items, most)
    if filter_seen and k > (unseen := fewest_unseen(sequences, num_items, candidates)):
        raise ConfigError(
            f"k: expected at most {unseen} with filter_seen, the items that a history has not seen, got {k}"
        )
    return sequences


def require_k(k: int, most: int) -> None:
    """Raises ``ConfigError`` unless ``k`` is an integer from 1 to ``most``."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= most:
        raise ConfigError(f"k: expected an integer from 1 to {most}, got {k!r}")


def _checked(histories: Histories, k: int, num_items: int, most: int) -> Ragged:
    require_k(k, most)
    sequences = histories if isinstance(histories, Ragged) else Ragged.from_rows(histories)
    values = sequences.values
    if len(values) and (values.min() < 0 or values.max() >= num_items):
        raise ConfigError(f"histories: expected ids in [0, {num_items}), got {values.min()}..{values.max()}")
    return sequences

"""Users with histories of like lengths in the same batches, whose rows are then as short as they can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged

_STEP = 8  # of which the shorter lengths are multiples
_LEAST_GAIN = 0.1  # of all places: every length is a program of its own, which takes a while to make

_MOST_BATCHES = 16
"""Of one length that follow each other: programs change hands seldom, and lengths stay mixed."""


@dataclass(frozen=True, eq=False)
class Block:
    """Batches that follow each other in an epoch and have rows of one ``length``: the epoch's batch ``first`` and those
    after it. ``rows`` (batches, B) int32 are users, -1 where a row only fills the last one."""

    first: int
    rows: npt.NDArray[np.int32]
    length: int


def choose_row_lengths(inputs: npt.NDArray[np.integer], max_length: int) -> tuple[int, ...]:
    """At most three lengths for rows of histories with so many ``inputs`` (users,), ascending.

    A row takes the shortest length that holds its inputs, the latest ``max_length`` of them. The last length holds the
    longest of all. The shorter ones are multiples of 8 up to half of it and leave the fewest places; each has to save a
    tenth of those that the last one alone has.
    """
    if not len(inputs):
        return (max_length,)
    max_length = min(-(-int(inputs.max()) // _STEP) * _STEP, max_length)
    shorter = np.arange(_STEP, max_length // 2 + 1, _STEP)
    if not len(shorter):
        return (max_length,)
    users = np.cumsum(np.bincount(np.minimum(inputs, max_length), minlength=max_length + 1))
    within, alone = users[shorter], int(users[-1]) * max_length
    # (i, j): what lengths i <= j save; on the diagonal they are one
    saved = within[:, None] * (shorter[None, :] - shorter[:, None]) + within[None, :] * (max_length - shorter[None, :])
    saved = np.where(shorter[:, None] <= shorter[None, :], saved, 0)
    one, two = np.diagonal(saved), np.unravel_index(saved.argmax(), saved.shape)
    if saved[two] - one.max() >= _LEAST_GAIN * alone:
        return int(shorter[two[0]]), int(shorter[two[1]]), max_length
    return (int(shorter[one.argmax()]), max_length) if one.max() >= _LEAST_GAIN * alone else (max_length,)


def mean_row_length(inputs: npt.NDArray[np.integer], row_lengths: Sequence[int]) -> float:
    """The mean length of the rows that histories with so many ``inputs`` (users,) take."""
    return float(np.asarray(row_lengths)[_places(inputs, row_lengths)].mean()) if len(inputs) else row_lengths[-1]


def epoch_blocks(
    train: Ragged,
    *,
    batch_size: int,
    row_lengths: Sequence[int],
    seed: int,
    epoch: int,
    accumulate: int = 1,
    ahead: int = 1,
) -> list[Block]:
    """The batches of an epoch: the users of ``numpy.random.default_rng((seed, epoch))``'s permutation of those with at
    least two items. A row of n items has n - ``ahead`` inputs.

    With one length batches are cut from the permutation. With more, each length's are cut from its own users; what does
    not fill the ``accumulate`` batches of an update goes on to the next length, so that as many batches come out. They
    follow each other in blocks of one length, in an order from the same generator.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(trainable_rows(train))
    place = _places(train.lengths[order] - ahead, row_lengths)
    cut = list[tuple[npt.NDArray[np.int32], int]]()
    left = order[:0]
    for number, length in enumerate(row_lengths):
        users = np.concatenate([left, order[place == number]])
        whole = len(users) if length == row_lengths[-1] else len(users) - len(users) % (batch_size * accumulate)
        users, left = users[:whole], users[whole:]
        rows = np.full((-(-len(users) // batch_size), batch_size), -1, np.int32)
        rows.reshape(-1)[: len(users)] = users
        size = _portion(len(rows), accumulate) if len(row_lengths) > 1 else max(len(rows), 1)
        cut += [(rows[begin : begin + size], length) for begin in range(0, len(rows), size)]
    turns = rng.permutation(len(cut)) if len(row_lengths) > 1 else range(len(cut))
    blocks, first = list[Block](), 0
    for turn in turns:
        blocks.append(Block(first, *cut[turn]))
        first += len(cut[turn][0])
    return blocks


def trainable_rows(train: Ragged) -> npt.NDArray[np.intp]:
    """The users that an epoch visits: those with at least two items, of which one can predict another."""
    return np.flatnonzero(train.lengths >= 2)


def _places(inputs: npt.NDArray[np.integer], row_lengths: Sequence[int]) -> npt.NDArray[np.intp]:
    """Which of the lengths each of the histories takes."""
    return np.searchsorted(row_lengths, np.minimum(inputs, row_lengths[-1]))


def _portion(batches: int, accumulate: int) -> int:
    """Batches of a block: whole updates, and as many in each as can be."""
    updates = -(-batches // accumulate)
    blocks = max(-(-updates // max(_MOST_BATCHES // accumulate, 1)), 1)
    return max(-(-updates // blocks), 1) * accumulate

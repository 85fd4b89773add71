"""Fixed-shape batches of user sequences, for training and for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged, as_int32
from ..errors import ConfigError
from .row_lengths import Block, epoch_blocks, trainable_rows
from .seen import Room, SeenItems, seen_items

PAD = -1
"""Item id of an empty input position."""

MASK = -2
"""Item id of an input position whose item is hidden from the model (BERT4Rec's)."""

IGNORE = -100
"""Target of a position that has no loss."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Training batch: position ``l`` of a row predicts ``targets[:, l]``.

    ``inputs`` is (B, L) int32 with `PAD` and, from `masked_batches`, `MASK`; ``targets`` is (B, L) int32 with
    `IGNORE` wherever nothing is to be predicted, and at least where the input is `PAD`.
    """

    inputs: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class EvalBatch:
    """Evaluation batch: the last position of a row predicts ``target``.

    ``inputs`` is (B, L) int32 with `PAD`, ``target`` (B,) int32. Rows from ``count`` on only fill the shape:
    their inputs are `PAD` and their target is `IGNORE`; leave them out of every metric. ``seen`` are the items to leave
    out of the ranking, None if all compete.
    """

    inputs: npt.NDArray[np.int32]
    target: npt.NDArray[np.int32]
    count: int
    seen: SeenItems | None = None


def num_batches(train: Ragged, *, batch_size: int) -> int:
    """Number of batches that one epoch of `train_batches` holds."""
    _require_positive(batch_size=batch_size)
    return -(-len(trainable_rows(train)) // batch_size)


def mean_targets(train: Ragged, *, batch_size: int, max_length: int) -> float:
    """Mean number of positions with a target in a batch of `train_batches`."""
    targets = np.minimum(train.lengths[trainable_rows(train)] - 1, max_length).sum()
    return float(targets) / num_batches(train, batch_size=batch_size)


def train_batches(
    train: Ragged,
    *,
    batch_size: int,
    max_length: int,
    seed: int,
    epoch: int,
    start_step: int = 0,
    row_lengths: Sequence[int] = (),
    accumulate: int = 1,
) -> Iterator[Batch]:
    """Yield one epoch of next-item batches, from batch ``start_step`` on.

    A row holds the last ``max_length + 1`` items of one user, all but the last as inputs and all but the
    first as targets, padded on the left. The order of users is ``numpy.random.default_rng((seed, epoch))``'s
    permutation of the users with at least two items, so an epoch is a function of (seed, epoch) and can be
    entered at any step. Every batch is (batch_size, max_length): the last one is filled with rows of padding.

    With ``row_lengths``, ascending within ``max_length``, a batch is (batch_size, L) for one of them, of users whose
    inputs it just holds (`epoch_blocks`), and so are the ``accumulate`` batches of an update. Rows then hold the last
    inputs that the longest of them does. Raises ``ConfigError`` for other lengths and sizes below 1.
    """
    check_epoch(
        train,
        batch_size=batch_size,
        max_length=max_length,
        start_step=start_step,
        row_lengths=row_lengths,
        accumulate=accumulate,
    )
    lengths = row_lengths or (max_length,)
    blocks = epoch_blocks(
        train, batch_size=batch_size, row_lengths=lengths, seed=seed, epoch=epoch, accumulate=accumulate
    )
    return _train_batches(train, blocks, start_step)


def _train_batches(train: Ragged, blocks: list[Block], start_step: int) -> Iterator[Batch]:
    for block in blocks:
        for rows in block.rows[max(start_step - block.first, 0) :]:
            window = last_items(train, rows[rows >= 0], width=block.length + 1, height=len(rows))
            inputs = np.ascontiguousarray(window[:, :-1])
            targets = np.where(inputs == PAD, np.int32(IGNORE), window[:, 1:])
            yield Batch(inputs, targets)


def eval_batches(
    histories: Ragged, targets: npt.NDArray[np.int32], *, batch_size: int, max_length: int, filter_seen: bool = False
) -> Iterator[EvalBatch]:
    """Yield every history once, in order: its last ``max_length`` items, padded on the left, and its target.

    ``histories`` has one row for each of the (rows,) ``targets``, integers that fit int32 (`DataError`). Every batch is
    (batch_size, max_length). ``filter_seen`` adds the items of each whole history but the target.
    """
    _require_positive(batch_size=batch_size, max_length=max_length)
    if len(histories) != len(targets):
        raise ConfigError(f"targets: expected one for each of {len(histories)} histories, got {len(targets)}")
    return _eval_batches(histories, as_int32(targets, "targets"), batch_size, max_length, filter_seen)


def _eval_batches(
    histories: Ragged, targets: npt.NDArray[np.int32], batch_size: int, max_length: int, filter_seen: bool
) -> Iterator[EvalBatch]:
    room = Room.of(histories.lengths, batch_size) if filter_seen else None
    for begin in range(0, len(histories), batch_size):
        rows = np.arange(begin, min(begin + batch_size, len(histories)))
        target = np.full(batch_size, IGNORE, dtype=np.int32)
        target[: len(rows)] = targets[rows]
        inputs = last_items(histories, rows, width=max_length, height=batch_size)
        yield EvalBatch(inputs, target, len(rows), seen_items(histories, rows, target, room) if filter_seen else None)


def last_items(sequences: Ragged, rows: npt.NDArray[np.integer], *, width: int, height: int) -> npt.NDArray[np.int32]:
    """The last ``width`` items of each of ``rows``, padded on the left with `PAD`: (height, width) int32.

    Rows beyond ``len(rows)`` are all `PAD`.
    """
    window = np.full((height, width), PAD, dtype=np.int32)
    starts = sequences.offsets[rows]
    source = sequences.offsets[rows + 1][:, None] + np.arange(-width, 0)
    present = source >= starts[:, None]
    window[: len(rows)][present] = sequences.values[source[present]]
    return window


def check_epoch(
    train: Ragged,
    *,
    batch_size: int,
    max_length: int,
    start_step: int,
    row_lengths: Sequence[int] = (),
    accumulate: int = 1,
) -> None:
    """Raises ``ConfigError`` for sizes below 1, a ``start_step`` that an epoch does not reach, and ``row_lengths`` that
    do not ascend within ``max_length``."""
    _require_positive(batch_size=batch_size, max_length=max_length, accumulate=accumulate)
    if not 0 <= start_step <= num_batches(train, batch_size=batch_size):
        raise ConfigError(f"start_step: expected 0 to {num_batches(train, batch_size=batch_size)}, got {start_step}")
    if list(row_lengths) != sorted({length for length in row_lengths if 1 <= length <= max_length}):
        raise ConfigError(f"row_lengths: expected lengths from 1 to {max_length}, ascending, got {tuple(row_lengths)}")


def _require_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ConfigError(f"{name}: expected a positive integer, got {value}")

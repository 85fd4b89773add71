"""Fixed-shape batches of user sequences with masked items to be found again (the Cloze task)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged
from ..errors import ConfigError
from .batches import IGNORE, MASK, PAD, Batch, check_epoch, last_items, num_batches
from .row_lengths import Block, epoch_blocks, trainable_rows

LAST_ONLY = 1 / 11
"""Fraction of rows in which the last item alone is masked, as it is in prediction: BERT4Rec's authors add one such copy
of a sequence to ten masked at random (the default ``dupe_factor`` of their data generator)."""


def mean_masked(train: Ragged, *, batch_size: int, max_length: int, mask_probability: float) -> float:
    """Expected number of positions with a target in a batch of `masked_batches`.

    A row of n items has ``LAST_ONLY + (1 - LAST_ONLY) (n p + (1 - p)^n)`` of them: the last term is the mask given to a
    row that drew none.
    """
    _require_probability(mask_probability)
    lengths = np.minimum(train.lengths[trainable_rows(train)], max_length)
    drawn = lengths * mask_probability + (1 - mask_probability) ** lengths
    targets = (LAST_ONLY + (1 - LAST_ONLY) * drawn).sum()
    return float(targets) / num_batches(train, batch_size=batch_size)


def masked_batches(
    train: Ragged,
    *,
    batch_size: int,
    max_length: int,
    mask_probability: float,
    seed: int,
    epoch: int,
    start_step: int = 0,
    row_lengths: Sequence[int] = (),
    accumulate: int = 1,
) -> Iterator[Batch]:
    """Yield one epoch of masked-item batches (Sun et al., 2019, arXiv 1904.06690), from batch ``start_step`` on.

    A row holds the last ``max_length`` items of one user, padded on the left. Each item is masked with
    ``mask_probability``, at least one in a row; in a fraction `LAST_ONLY` of the rows the last item alone is masked. A
    masked item is `MASK` in the inputs and itself in the targets, which are `IGNORE` everywhere else.

    The users and their order are those of `train_batches`, where n items are n inputs here; the masks of batch s come
    from ``numpy``'s generator of ``SeedSequence((seed, epoch), spawn_key=(s,))``. So an epoch is a function of (seed,
    epoch) and can be entered at any step. Every batch is (batch_size, max_length): the last one is filled with rows of
    padding; ``row_lengths`` and ``accumulate`` are those of `train_batches`. Raises ``ConfigError`` for sizes below 1,
    a ``mask_probability`` outside (0, 1) and a ``start_step`` beyond the epoch.
    """
    check_epoch(
        train,
        batch_size=batch_size,
        max_length=max_length,
        start_step=start_step,
        row_lengths=row_lengths,
        accumulate=accumulate,
    )
    _require_probability(mask_probability)
    blocks = epoch_blocks(
        train,
        batch_size=batch_size,
        row_lengths=row_lengths or (max_length,),
        seed=seed,
        epoch=epoch,
        accumulate=accumulate,
        ahead=0,
    )
    return _masked_batches(train, blocks, mask_probability, seed, epoch, start_step)


def _masked_batches(
    train: Ragged, blocks: list[Block], mask_probability: float, seed: int, epoch: int, start_step: int
) -> Iterator[Batch]:
    for block in blocks:
        for step, rows in enumerate(block.rows, block.first):
            if step >= start_step:
                items = last_items(train, rows[rows >= 0], width=block.length, height=len(rows))
                masked = draw_masks(items != PAD, mask_probability, masks_generator(seed, epoch, step))
                yield Batch(np.where(masked, np.int32(MASK), items), np.where(masked, items, np.int32(IGNORE)))


def masks_generator(seed: int, epoch: int, step: int) -> np.random.Generator:
    """From which the masks of batch ``step`` of an epoch come."""
    # A spawn key, because SeedSequence pads with zeros: (seed, epoch, 0) would be the generator of the order.
    return np.random.default_rng(np.random.SeedSequence((seed, epoch), spawn_key=(step,)))


def draw_masks(
    present: npt.NDArray[np.bool_], mask_probability: float, rng: np.random.Generator
) -> npt.NDArray[np.bool_]:
    """Which places to mask of those with an item, ``present`` (B, L): (B, L) bool, one or more in a row with an
    item."""
    # The item with the lowest draw is masked whatever its draw: a row always has a target.
    draws = np.where(present, rng.random(present.shape), np.inf)
    masked = (draws < mask_probability) | (draws == draws.min(axis=1, keepdims=True))
    last_only = rng.random(len(present)) < LAST_ONLY
    masked[last_only] = False
    masked[last_only, -1] = True
    return masked & present


def _require_probability(mask_probability: float) -> None:
    if not 0 < mask_probability < 1:
        raise ConfigError(f"mask_probability: expected a number between 0 and 1, got {mask_probability}")

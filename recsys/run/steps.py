"""The steps of an epoch in portions: what the host tells the device of them, prepared ahead of their turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..protocol.batches import IGNORE, PAD, Batch, batch_rows, num_batches
from ..protocol.masked_batches import draw_masks, masks_generator
from ..protocol.splits import Split
from .config import TrainConfig
from .experiment import epoch_batches
from .optimizer_choices import learning_rate

MOST_BATCHES = 64
"""In a portion: what a portion costs the host is little beside so many steps, and its operands little memory."""

_MOST_IDS = 2**26  # in the inputs and targets of a portion that the host gathers

DEVICE_SHARE = 8
"""Users' sequences stay on the device where they take at most this part of its memory."""


@dataclass(frozen=True)
class Steps:
    """U updates of the weights from A = ``accumulate`` batches each; all portions of an epoch have one shape.

    ``first`` is the number of the first batch in the run (the next ones follow), ``counts`` (U,) int32 are the batches
    of each update: fewer at an epoch's end, 0 for an update that only fills the last portion. ``rates`` (U,) float32
    are learning rates. Of batches that the device gathers there are ``rows`` (U, A, B) int32, users or -1 where a row
    only fills the batch, and of masked-item batches ``masked`` (U, A, B, L) bool; of others ``inputs`` and ``targets``
    (U, A, B, L) int32. Arrays of batches that only fill are all padding.
    """

    first: int
    counts: npt.NDArray[np.int32]
    rates: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int32] | None = None
    masked: npt.NDArray[np.bool_] | None = None
    inputs: npt.NDArray[np.int32] | None = None
    targets: npt.NDArray[np.int32] | None = None

    @property
    def num_batches(self) -> int:
        """Batches that do not only fill: the first so many."""
        return int(self.counts.sum())

    @classmethod
    def of_batch(cls, batch: Batch, step: int, config: TrainConfig) -> Steps:
        """One update from one batch, the run's batch ``step``, at the rate of a constant schedule."""
        rate = learning_rate(step, 0, peak=config.learning_rate, warmup_steps=config.warmup_steps, schedule="constant")
        return cls(
            step,
            np.ones(1, np.int32),
            np.array([rate], np.float32),
            inputs=batch.inputs[None, None],
            targets=batch.targets[None, None],
        )


def num_updates(config: TrainConfig, split: Split) -> int:
    """Updates of the weights in an epoch; batches that are left at its end make one more."""
    return -(-num_batches(split.train, batch_size=config.batch_size) // config.accumulate)


def stay_on_device(config: TrainConfig, split: Split, memory: int) -> bool:
    """Whether users' sequences stay on a device of so many bytes of ``memory``, as ``config.data_on`` says."""
    events = len(split.train.values)
    if events >= 2**31:
        if config.data_on == "device":
            raise ConfigError(f"data_on: expected auto or host for 2**31 events and more, got device for {events}")
        return False
    fits = split.train.values.nbytes + split.train.offsets.nbytes <= memory // DEVICE_SHARE
    return config.data_on == "device" or (config.data_on == "auto" and fits)


def epoch_steps(
    config: TrainConfig, split: Split, epoch: int, *, on_device: bool, most: int = MOST_BATCHES
) -> Iterator[Steps]:
    """The steps of an epoch in portions of about ``most`` batches; the batches are `epoch_batches` either way.

    ``on_device``: the device gathers the batches from the users' sequences.
    """
    accumulate, updates = config.accumulate, num_updates(config, split)
    total = num_batches(split.train, batch_size=config.batch_size)
    if not on_device:
        most = min(most, max(_MOST_IDS // (2 * config.batch_size * config.max_length), 1))
    portions = -(-updates // max(most // accumulate, 1))
    size = -(-updates // max(portions, 1))
    batches = epoch_batches(config, split, epoch)
    rows = batch_rows(split.train, batch_size=config.batch_size, seed=config.seed, epoch=epoch)
    for begin in range(0, updates, size):
        numbers = np.arange(begin * accumulate, min((begin + size) * accumulate, total))
        counts = np.bincount(numbers // accumulate - begin, minlength=size).astype(np.int32)
        rates = [_rate(config, epoch * updates + begin + update, updates) for update in range(size)]
        shape = size, accumulate
        arrays = (
            _rows_of(config, split, epoch, rows, numbers, shape)
            if on_device
            else _stacked(config, list(itertools.islice(batches, len(numbers))), shape)
        )
        yield Steps(epoch * total + begin * accumulate, counts, np.array(rates, np.float32), **arrays)


def _rate(config: TrainConfig, update: int, updates: int) -> float:
    return learning_rate(
        update,
        config.epochs * updates,
        peak=config.learning_rate,
        warmup_steps=config.warmup_steps,
        schedule=config.schedule,
    )


def _rows_of(
    config: TrainConfig,
    split: Split,
    epoch: int,
    rows: npt.NDArray[np.int32],
    numbers: npt.NDArray[np.int64],
    shape: tuple[int, int],
) -> dict[str, npt.NDArray]:
    chosen = np.full((*shape, config.batch_size), -1, np.int32)
    chosen.reshape(-1, config.batch_size)[: len(numbers)] = rows[numbers]
    if config.model != "bert4rec":
        return {"rows": chosen}
    width = config.max_length
    lengths = np.append(np.minimum(split.train.lengths, width), 0)  # of the row -1: nothing
    masked = np.zeros((*shape, config.batch_size, width), np.bool_)
    for place, number in zip(masked.reshape(-1, config.batch_size, width), numbers, strict=False):
        present = np.arange(width) >= width - lengths[rows[number]][:, None]
        place[:] = draw_masks(present, config.mask_probability, masks_generator(config.seed, epoch, int(number)))
    return {"rows": chosen, "masked": masked}


def _stacked(config: TrainConfig, batches: list[Batch], shape: tuple[int, int]) -> dict[str, npt.NDArray]:
    width = batches[0].inputs.shape[1]
    inputs = np.full((*shape, config.batch_size, width), PAD, np.int32)
    targets = np.full_like(inputs, IGNORE)
    for name, array in (("inputs", inputs), ("targets", targets)):
        flat = array.reshape(-1, config.batch_size, width)
        for place, batch in zip(flat, batches, strict=False):
            place[:] = getattr(batch, name)
    return {"inputs": inputs, "targets": targets}

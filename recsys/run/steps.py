"""The steps of an epoch in portions: what the host tells the device of them, prepared ahead of their turn."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..protocol.batches import IGNORE, PAD, Batch, num_batches
from ..protocol.masked_batches import draw_masks, masks_generator
from ..protocol.row_lengths import Block
from ..protocol.splits import Split
from .config import TrainConfig
from .experiment import blocks_of_epoch, epoch_batches
from .optimizer_choices import learning_rate

MOST_BATCHES = 64
"""In a portion: what a portion costs the host is little beside so many steps, and its operands little memory."""

_MOST_IDS = 2**26  # in the inputs and targets of a portion that the host gathers

DEVICE_SHARE = 8
"""Users' sequences stay on the device where they take at most this part of its memory."""


@dataclass(frozen=True)
class Steps:
    """U updates of the weights from A = ``accumulate`` batches each, of rows of one ``length`` L; all portions of an
    epoch with this length have one shape.

    ``first`` is the number of the first batch in the run (the next ones follow), ``counts`` (U,) int32 are the batches
    of each update: fewer in one of an epoch, 0 for an update that only fills the portion. ``rates`` (U,) float32
    are learning rates. Of batches that the device gathers there are ``rows`` (U, A, B) int32, users or -1 where a row
    only fills the batch, and of masked-item batches ``masked`` (U, A, B, L) bool; of others ``inputs`` and ``targets``
    (U, A, B, L) int32. Arrays of batches that only fill are all padding.
    """

    first: int
    counts: npt.NDArray[np.int32]
    rates: npt.NDArray[np.float32]
    length: int
    rows: npt.NDArray[np.int32] | None = None
    masked: npt.NDArray[np.bool_] | None = None
    inputs: npt.NDArray[np.int32] | None = None
    targets: npt.NDArray[np.int32] | None = None

    @property
    def num_batches(self) -> int:
        """Batches that do not only fill: the first so many."""
        return int(self.counts.sum())

    def of_rank(self, index: int, number: int) -> Steps:
        """The part of rank ``index`` of ``number``: of each batch every so many-th row from it on; batches are filled
        up to a multiple first."""
        return self.with_batches(lambda name: np.ascontiguousarray(self.part(name, index, number)))

    def part(self, name: str, index: int, number: int) -> npt.NDArray:
        """Of the batches' array of this ``name``."""
        array = getattr(self, name)
        if array.shape[2] % number:
            more = [(0, -size % number if axis == 2 else 0) for axis, size in enumerate(array.shape)]
            array = np.pad(array, more, constant_values=_FILLS[name])
        return array[:, :, index::number]

    def with_batches(self, made: Callable[[str], npt.NDArray]) -> Steps:
        """The same with other batches, ``made`` for each name of an array that there is."""
        return replace(self, **{name: made(name) for name in _FILLS if getattr(self, name) is not None})

    @classmethod
    def of_batch(cls, batch: Batch, step: int, config: TrainConfig) -> Steps:
        """One update from one batch, the run's batch ``step``, at the rate of a constant schedule."""
        rate = learning_rate(step, 0, peak=config.learning_rate, warmup_steps=config.warmup_steps, schedule="constant")
        return cls(
            step,
            np.ones(1, np.int32),
            np.array([rate], np.float32),
            batch.inputs.shape[1],
            inputs=batch.inputs[None, None],
            targets=batch.targets[None, None],
        )


_FILLS = {"rows": -1, "masked": False, "inputs": PAD, "targets": IGNORE}
"""Of a row that only fills a batch."""


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
    config: TrainConfig,
    split: Split,
    epoch: int,
    *,
    on_device: bool,
    most: int = MOST_BATCHES,
    is_warm: bool = False,
) -> Iterator[Steps]:
    """The steps of an epoch in portions of about ``most`` batches; the batches are `epoch_batches` either way.

    ``on_device``: the device gathers the batches from the users' sequences. ``is_warm``: rates have no warm-up.
    """
    updates, total = num_updates(config, split), num_batches(split.train, batch_size=config.batch_size)
    blocks = blocks_of_epoch(config, split, epoch)
    batches = iter(()) if on_device else epoch_batches(config, split, epoch)
    update = epoch * updates
    for block, numbers, size in _portions(blocks, config, on_device, most):
        counts = np.bincount((numbers - numbers[0]) // config.accumulate, minlength=size).astype(np.int32)
        rates = [_rate(config, update + number, updates, is_warm) for number in range(size)]
        update += int(np.count_nonzero(counts))
        shape = size, config.accumulate
        arrays = (
            _rows_of(config, split, epoch, block, numbers, shape)
            if on_device
            else _stacked(list(itertools.islice(batches, len(numbers))), shape)
        )
        first = epoch * total + block.first + int(numbers[0])
        yield Steps(first, counts, np.array(rates, np.float32), block.length, **arrays)


def _portions(
    blocks: list[Block], config: TrainConfig, on_device: bool, most: int
) -> Iterator[tuple[Block, npt.NDArray[np.int64], int]]:
    """Of each portion its block, the batches there and how many updates it has room for, the same for each length."""
    accumulate, largest = config.accumulate, dict[int, int]()
    for block in blocks:
        largest[block.length] = max(largest.get(block.length, 0), -(-len(block.rows) // accumulate))
    for block in blocks:
        fit = most if on_device else max(_MOST_IDS // (2 * config.batch_size * block.length), 1)
        portions = -(-largest[block.length] // max(min(most, fit) // accumulate, 1))
        size = -(-largest[block.length] // portions)
        for begin in range(0, len(block.rows), size * accumulate):
            yield block, np.arange(begin, min(begin + size * accumulate, len(block.rows))), size


def _rate(config: TrainConfig, update: int, updates: int, is_warm: bool) -> float:
    return learning_rate(
        update,
        config.epochs * updates,
        peak=config.learning_rate,
        warmup_steps=0 if is_warm else config.warmup_steps,
        schedule=config.schedule,
    )


def _rows_of(
    config: TrainConfig,
    split: Split,
    epoch: int,
    block: Block,
    numbers: npt.NDArray[np.int64],
    shape: tuple[int, int],
) -> dict[str, npt.NDArray]:
    rows = block.rows
    chosen = np.full((*shape, config.batch_size), -1, np.int32)
    chosen.reshape(-1, config.batch_size)[: len(numbers)] = rows[numbers]
    if config.model != "bert4rec":
        return {"rows": chosen}
    width = block.length
    lengths = np.append(np.minimum(split.train.lengths, width), 0)  # of the row -1: nothing
    masked = np.zeros((*shape, config.batch_size, width), np.bool_)
    for place, number in zip(masked.reshape(-1, config.batch_size, width), numbers, strict=False):
        present = np.arange(width) >= width - lengths[rows[number]][:, None]
        place[:] = draw_masks(
            present, config.mask_probability, masks_generator(config.seed, epoch, block.first + int(number))
        )
    return {"rows": chosen, "masked": masked}


def _stacked(batches: list[Batch], shape: tuple[int, int]) -> dict[str, npt.NDArray]:
    size = batches[0].inputs.shape
    inputs = np.full((*shape, *size), PAD, np.int32)
    targets = np.full_like(inputs, IGNORE)
    for name, array in (("inputs", inputs), ("targets", targets)):
        flat = array.reshape(-1, *size)
        for place, batch in zip(flat, batches, strict=False):
            place[:] = getattr(batch, name)
    return {"inputs": inputs, "targets": targets}

"""The steps of an epoch in portions: the batches of `epoch_batches`, whoever gathers them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.jax_impl.training.sequences import Sequences as JaxSequences
from cce_minus.recsys import IGNORE, PAD, ConfigError, Ragged, Split, TrainConfig, epoch_batches, last_items
from cce_minus.recsys.run.optimizer_choices import learning_rate
from cce_minus.recsys.run.steps import DEVICE_SHARE, Steps, epoch_steps, num_updates, stay_on_device
from cce_minus.torch_impl.training.sequences import Sequences as TorchSequences

LENGTH, BATCH = 6, 4
EPOCH = 3

Pair = tuple[np.ndarray, np.ndarray]
Gather = Callable[[Steps], Iterator[Pair]]


@pytest.fixture(scope="module")
def split() -> Split:
    """37 users with 0 to 14 items, of which some are not trained on: ten batches, the last with rows that only fill."""
    rng = np.random.default_rng(0)
    lengths = [*range(15), 1, *rng.integers(0, 15, 21)]
    train = Ragged.from_rows([rng.integers(0, 50, length) for length in lengths])
    nobody = Ragged.from_rows([])
    return Split(train, nobody, np.zeros(0, np.int32), nobody, np.zeros(0, np.int32), 50)


def config_of(**options: object) -> TrainConfig:
    defaults = {"max_length": LENGTH, "batch_size": BATCH, "dim": 4, "epochs": 5, "warmup_steps": 3, "seed": 11}
    return TrainConfig(**(defaults | options))  # pyright: ignore[reportArgumentType]


def brought(steps: Steps) -> Iterator[Pair]:
    assert steps.inputs is not None
    assert steps.targets is not None
    yield from zip(*(array.reshape(-1, *array.shape[2:]) for array in (steps.inputs, steps.targets)), strict=True)


def gathered(sequences: TorchSequences | JaxSequences, as_array: Callable, steps: Steps) -> Iterator[Pair]:
    assert steps.rows is not None
    for number, rows in enumerate(steps.rows.reshape(-1, BATCH)):
        if steps.masked is None:
            pair = sequences.next_items(as_array(rows), LENGTH)
        else:
            masked = steps.masked.reshape(-1, BATCH, LENGTH)[number]
            pair = sequences.masked_items(as_array(rows), as_array(masked))
        yield np.asarray(pair[0]), np.asarray(pair[1])


def gather_of(kind: str, train: Ragged) -> Gather:
    if kind == "host":
        return brought
    if kind == "torch":
        on_device = TorchSequences(train, torch.device("cpu"))
        return lambda steps: gathered(on_device, torch.from_numpy, steps)
    return lambda steps: gathered(JaxSequences.of(train), jnp.asarray, steps)


@pytest.mark.parametrize("most", [1, 4, 64])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("model", ["sasrec", "bert4rec"])
@pytest.mark.parametrize("kind", ["torch", "jax", "host"])
def test_batches_are_those_of_the_epoch(split: Split, kind: str, model: str, accumulate: int, most: int):
    config = config_of(model=model, accumulate=accumulate)
    expected = list(epoch_batches(config, split, EPOCH))
    portions = list(epoch_steps(config, split, EPOCH, on_device=kind != "host", most=most))
    gather, found = gather_of(kind, split.train), []
    for steps in portions:
        assert steps.first == EPOCH * len(expected) + len(found)
        pairs = list(gather(steps))
        found += pairs[: steps.num_batches]
        for inputs, targets in pairs[steps.num_batches :]:  # they only fill
            assert (inputs == PAD).all()
            assert (targets == IGNORE).all()
    assert len(found) == len(expected)
    for (inputs, targets), batch in zip(found, expected, strict=True):
        for got, want in ((inputs, batch.inputs), (targets, batch.targets)):
            assert got.dtype == want.dtype == np.int32
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("most", [1, 4, 7, 64])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_portions_have_one_shape_and_share_out_batches_and_rates(split: Split, accumulate: int, most: int):
    config = config_of(accumulate=accumulate, schedule="cosine")
    batches = sum(1 for _ in epoch_batches(config, split, EPOCH))
    updates = num_updates(config, split)
    assert updates == -(-batches // accumulate)
    portions = list(epoch_steps(config, split, EPOCH, on_device=True, most=most))
    assert len({steps.counts.shape for steps in portions}) == 1
    assert portions[0].counts.size <= max(most // accumulate, 1)
    counts = np.concatenate([steps.counts for steps in portions])
    assert counts[:updates].tolist() == [min(accumulate, batches - accumulate * update) for update in range(updates)]
    assert not counts[updates:].any()
    for number, rate in enumerate(np.concatenate([steps.rates for steps in portions])[:updates]):
        expected = learning_rate(
            EPOCH * updates + number, 5 * updates, peak=config.learning_rate, warmup_steps=3, schedule="cosine"
        )
        assert rate == np.float32(expected)


def test_the_last_items_are_the_hosts(split: Split):
    rows = np.array([5, 14, 0, 1, -1, 9], np.int32)
    for width in (1, 5, 20):
        expected = last_items(split.train, rows, width=width, height=len(rows))
        expected[rows < 0] = PAD
        for sequences, as_array in (
            (TorchSequences(split.train, torch.device("cpu")), torch.from_numpy),
            (JaxSequences.of(split.train), jnp.asarray),
        ):
            found = sequences.last_items(as_array(rows), width)  # pyright: ignore[reportArgumentType]
            np.testing.assert_array_equal(np.asarray(found), expected)


def test_large_portions_of_the_host_are_cut(split: Split, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("cce_minus.recsys.run.steps._MOST_IDS", 2 * 2 * BATCH * LENGTH)
    assert [steps.num_batches for steps in epoch_steps(config_of(), split, 0, on_device=False)][:2] == [2, 2]
    (whole,) = epoch_steps(config_of(), split, 0, on_device=True)
    assert whole.num_batches > 2


def test_a_batch_alone_is_a_step(split: Split):
    config = config_of(warmup_steps=4, learning_rate=0.5)
    batch = next(epoch_batches(config, split, 0))
    steps = Steps.of_batch(batch, 2, config)
    assert (steps.first, steps.num_batches, steps.counts.tolist(), steps.rates.tolist()) == (2, 1, [1], [0.375])
    ((inputs, targets),) = brought(steps)
    np.testing.assert_array_equal(inputs, batch.inputs)
    np.testing.assert_array_equal(targets, batch.targets)


def test_where_the_sequences_stay(split: Split):
    needed = DEVICE_SHARE * (split.train.values.nbytes + split.train.offsets.nbytes)
    for data_on, memory, expected in (
        ("auto", needed, True), ("auto", needed - DEVICE_SHARE, False), ("device", 0, True), ("host", 2**63, False),
    ):  # fmt: skip
        assert stay_on_device(config_of(data_on=data_on), split, memory) == expected
    # as many events as int32 does not count, without their memory
    values = np.lib.stride_tricks.as_strided(np.zeros(1, np.int32), (2**31,), (0,))
    huge = Ragged.__new__(Ragged)
    object.__setattr__(huge, "values", values)
    object.__setattr__(huge, "offsets", np.array([0, 2**31]))
    many = dataclasses.replace(split, train=huge)
    assert not stay_on_device(config_of(), many, 2**63)
    with pytest.raises(ConfigError, match=r"data_on: expected auto or host for 2\*\*31 events and more, got device"):
        stay_on_device(config_of(data_on="device"), many, 2**63)

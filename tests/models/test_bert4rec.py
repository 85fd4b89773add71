"""BERT4Rec: sees both sides and never what is masked, and predicts from a mask behind the history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import MASK, PAD
from safetensors.numpy import load_file

from tests.models.conftest import rewrite


def test_every_item_changes_every_place(framework: Any, sequences: np.ndarray):
    model = framework.build(model="bert4rec")
    before = framework.hidden(model, sequences)
    for place in (0, 7, 11):
        changed = sequences.copy()
        changed[0, place] = (changed[0, place] + 1) % 37
        after = framework.hidden(model, changed)
        assert (np.abs(after - before)[0].max(axis=-1) > 1e-7).all()
        np.testing.assert_array_equal(after[1:], before[1:])


@pytest.mark.parametrize("masked", [PAD, MASK])
def test_padding_is_never_seen_and_a_mask_is(framework: Any, sequences: np.ndarray, masked: int):
    model, changed = framework.build(model="bert4rec"), sequences.copy()
    changed[1, 4] = masked
    difference = np.abs(framework.hidden(model, changed) - framework.hidden(model, sequences))[1, 5:]
    assert (difference.max(axis=-1) > 0).all() == (masked == MASK)


def test_the_positions_of_padding_are_not_seen(framework: Any, sequences: np.ndarray, tmp_path: Path):
    model, path = framework.build(model="bert4rec"), tmp_path / "weights.safetensors"
    before = framework.hidden(model, sequences)
    framework.save(model, path)
    tensors = load_file(path)
    tensors["position_table"][:5] *= -9
    rewrite(path, tensors)
    framework.load(model, path)
    difference = np.abs(framework.hidden(model, sequences) - before)[:, 5:].max(axis=(1, 2))
    assert difference[1] < 1e-6
    assert difference[0] > 1e-4


def test_a_masked_place_does_not_show_its_item(framework: Any, other: Any, sequences: np.ndarray, tmp_path: Path):
    model, twin, path = (
        framework.build(seed=1, model="bert4rec"),
        other.build(seed=2, model="bert4rec"),
        tmp_path / "w.safetensors",
    )
    framework.save(model, path)
    other.load(twin, path)
    masked = sequences.copy()
    masked[0, [2, 11]] = masked[1, 5] = masked[2, 11] = MASK
    hidden = framework.hidden(model, masked)
    np.testing.assert_allclose(other.hidden(twin, masked), hidden, rtol=0, atol=1e-5)
    # A mask is an input of its own: rows of items that are masked everywhere, like all that are absent, may be
    # anything.
    tensors = load_file(path)
    absent = np.setdiff1d(np.arange(37), masked)
    assert np.isin(sequences[0, 2], absent)
    tensors["item_table"][absent] *= -9
    rewrite(path, tensors)
    framework.load(model, path)
    np.testing.assert_array_equal(framework.hidden(model, masked), hidden)
    tensors["mask_vector"] *= -9
    rewrite(path, tensors)
    framework.load(model, path)
    assert np.abs(framework.hidden(model, masked) - hidden).max() > 1e-2


def test_the_next_item_is_that_of_a_mask_behind_the_history(framework: Any, sequences: np.ndarray):
    model = framework.build(model="bert4rec")
    shifted = np.concatenate([sequences[:, 1:], np.full((5, 1), MASK, np.int32)], axis=1)
    np.testing.assert_allclose(
        framework.next_item_hidden(model, sequences), framework.hidden(model, shifted)[:, -1], rtol=0, atol=1e-6
    )
    # A history with room for the mask keeps its first item.
    short = np.ascontiguousarray(sequences[:, 5:])
    longer = np.concatenate([short, np.full((5, 1), MASK, np.int32)], axis=1)
    np.testing.assert_allclose(
        framework.next_item_hidden(model, short), framework.hidden(model, longer)[:, -1], rtol=0, atol=1e-6
    )

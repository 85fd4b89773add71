"""BERT4Rec: sees both sides and never what is masked, and predicts from a mask behind the history."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import MASK, PAD


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


def test_what_lies_under_padding_changes_nothing(framework: Any, sequences: np.ndarray, tmp_path):
    model = framework.build(model="bert4rec")
    before = framework.hidden(model, sequences)
    # Positions of padding only: places 0 to 4 of row 1 would show, were they seen.
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    framework.save(model, tmp_path / "weights.safetensors")
    tensors = load_file(tmp_path / "weights.safetensors")
    with safe_open(tmp_path / "weights.safetensors", framework="np") as file:
        metadata = file.metadata()
    tensors["position_table"][:5] += 1.0
    save_file(tensors, tmp_path / "moved.safetensors", metadata=metadata)
    framework.load(model, tmp_path / "moved.safetensors")
    after = framework.hidden(model, sequences)
    np.testing.assert_allclose(after[1, 5:], before[1, 5:], rtol=0, atol=1e-6)
    assert np.abs(after[0, 5:] - before[0, 5:]).max() > 1e-3


def test_a_masked_place_scores_all_items_by_its_neighbours(framework: Any, other: Any, sequences: np.ndarray, tmp_path):
    model, twin = framework.build(seed=1, model="bert4rec"), other.build(seed=2, model="bert4rec")
    framework.save(model, tmp_path / "weights.safetensors")
    other.load(twin, tmp_path / "weights.safetensors")
    masked = sequences.copy()
    masked[0, [2, 11]] = masked[1, 5] = masked[2, 11] = MASK
    hidden = framework.hidden(model, masked)
    assert np.isfinite(hidden).all()
    np.testing.assert_allclose(other.hidden(twin, masked), hidden, rtol=0, atol=1e-5)
    # A masked place is an input of its own, not the item's: the item's row of the table may be anything.
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(tmp_path / "weights.safetensors", framework="np") as file:
        metadata = file.metadata()
    tensors = load_file(tmp_path / "weights.safetensors")
    hidden_items = np.setdiff1d(np.arange(37), masked)
    assert len(hidden_items)
    tensors["item_table"][hidden_items] += 1.0
    save_file(tensors, tmp_path / "moved.safetensors", metadata=metadata)
    framework.load(model, tmp_path / "moved.safetensors")
    np.testing.assert_array_equal(framework.hidden(model, masked), hidden)


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

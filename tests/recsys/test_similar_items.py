"""The items nearest to items, against a sort of all cosines."""

from __future__ import annotations

import numpy as np
import pytest
from cce_minus.recsys import ConfigError
from cce_minus.recsys.run.tensor_file import Stored
from cce_minus.recsys.serving import similar_items as module
from cce_minus.recsys.serving.similar_items import similar_items


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_nearest_are_those_of_a_sort(dtype: str, monkeypatch: pytest.MonkeyPatch):
    """Few different directions, so that many cosines are equal: these go by the id. Pieces end anywhere."""
    monkeypatch.setattr(module, "_VECTORS", 37)
    monkeypatch.setattr(module, "_ITEMS", 3)
    rng = np.random.default_rng(0)
    # of lengths 1, 2 and 4, or 0: cosines are exact
    vectors = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 500)] * rng.choice([-4, -1, 0, 1, 2], (500, 1))
    vectors = vectors.astype(np.float32)
    words = vectors if dtype == "float32" else (vectors.view(np.uint32) >> 16).astype(np.uint16)
    stored = Stored(dtype, vectors.shape, lambda: [words[:123], words[123:]])
    items = np.array([0, 499, 17, 17, 40])
    found, cosines = similar_items(stored, items, 150)
    directions = vectors / np.where((lengths := np.abs(vectors).sum(axis=1, keepdims=True)) > 0, lengths, 1)
    expected = directions[items] @ directions.T + np.float32(0)
    expected[np.arange(len(items)), items] = -np.inf
    order = np.argsort(-expected, axis=1, kind="stable")[:, :150]
    assert np.array_equal(found, order)
    assert np.array_equal(cosines, np.take_along_axis(expected, order, 1))


@pytest.mark.parametrize("k", [0, 3])
def test_there_are_so_many_others(k: int):
    with pytest.raises(ConfigError, match=rf"k: expected an integer from 1 to 2, got {k}"):
        similar_items(Stored.of(np.eye(3, dtype=np.float32)), np.array([0]), k)

"""How long a row is where the log decides."""

from __future__ import annotations

import numpy as np
import pytest
from cce_minus.recsys import Ragged, Split, TrainConfig
from cce_minus.recsys.run.history_length import with_length


def split_of(lengths: list[int]) -> Split:
    rows = Ragged.from_rows([np.zeros(length, np.int32) for length in lengths])
    none = Ragged.from_rows([])
    return Split(rows, none, np.zeros(0, np.int32), none, np.zeros(0, np.int32), 1)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([*[3] * 9, 500], 56),  # the 90th percentile, 52.7 between the ninth and the tenth
        ([*[3] * 19, 500], 8),
        ([16] * 10, 16),
        ([17] * 10, 24),
        ([1000] * 10, 200),
    ],
)
def test_nine_in_ten_users_are_seen_whole(lengths: list[int], expected: int):
    for model in ("sasrec", "bert4rec"):
        assert with_length(TrainConfig(max_length=0, model=model), split_of(lengths)).max_length == expected
    given = TrainConfig(max_length=7)
    assert with_length(given, split_of(lengths)) is given

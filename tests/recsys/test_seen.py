"""What rankings leave out, in arrays that all batches have room in."""

from __future__ import annotations

import numpy as np
import pytest
from cce_minus.recsys import Ragged, eval_batches, seen_items
from cce_minus.recsys.protocol.seen import Room

HISTORIES = Ragged.from_rows([[4, 2, 4], [], [7], [1, 2, 3, 5, 6], [0], [9, 8]])


@pytest.mark.parametrize(
    ("batch_size", "room"), [(1, Room(8, 8)), (2, Room(8, 8)), (3, Room(8, 8)), (6, Room(16, 8)), (9, Room(16, 8))]
)
def test_there_is_room_for_every_batch(batch_size: int, room: Room):
    assert Room.of(HISTORIES.lengths, batch_size) == room
    targets = np.array([2, 0, 7, 0, 1, 9], np.int32)
    found: list[list[int]] = []
    for batch in eval_batches(HISTORIES, targets, batch_size=batch_size, max_length=2, filter_seen=True):
        assert batch.seen is not None
        arrays, most = batch.seen.padded(batch_size)
        assert (len(arrays["row"]), len(arrays["item"]), most) == (room.pairs, room.pairs, room.of_row)
        pairs = len(batch.seen.row)
        assert (arrays["row"][pairs:] == batch_size).all()
        assert (arrays["item"][pairs:] == -1).all()
        first = arrays["first"]
        assert first.shape == (batch_size + 1,)
        assert (first[0], first[-1]) == (0, pairs)
        found += [arrays["item"][first[row] : first[row + 1]].tolist() for row in range(batch.count)]
    assert found == [[4, 4], [], [], [1, 2, 3, 5, 6], [0], [8]]


@pytest.mark.parametrize("histories", [Ragged.from_rows([]), Ragged.from_rows([[], []])])
def test_nothing_takes_no_room(histories: Ragged):
    assert Room.of(histories.lengths, 4) == Room(0, 0)
    arrays, most = seen_items(histories, np.arange(len(histories))).padded(2)
    assert (arrays["row"].size, arrays["first"].tolist(), most) == (0, [0, 0, 0], 0)


def test_a_batch_that_stands_alone_has_room_of_its_own():
    arrays, most = seen_items(HISTORIES, np.array([3, 5])).padded(2)
    assert arrays["row"].tolist() == [0, 0, 0, 0, 0, 1, 1, 2]
    assert arrays["item"].tolist() == [1, 2, 3, 5, 6, 8, 9, -1]
    assert most == 8

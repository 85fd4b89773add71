"""Ranks that find each other where those of an earlier start have left words."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
import torch.distributed as dist
from cce_minus.recsys import RankError
from cce_minus.torch_impl import meeting as module
from cce_minus.torch_impl.meeting import meeting

HashStore: Any = dist.HashStore  # pyright: ignore[reportPrivateImportUsage]


def test_each_start_has_a_name_of_its_own():
    store, names = HashStore(), set[str]()
    for _ in range(3):
        with ThreadPoolExecutor(4) as ranks:
            (name,) = set(ranks.map(lambda rank: meeting(store, rank, 4), range(4)))
        names.add(name)
    assert len(names) == 3


def test_ranks_that_do_not_come_are_named():
    with mock.patch.object(module, "_LONGEST", 0.1), pytest.raises(RankError, match=r"got none of \[1, 2\]"):
        meeting(HashStore(), 0, 3)
    assert meeting(HashStore(), 0, 1)

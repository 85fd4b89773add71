"""The synthetic batches of a case, the same in both frameworks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .cases import Case

Ids = npt.NDArray[np.int32]


def targets_and_inputs(case: Case, rank: int) -> tuple[Ids, Ids]:
    """Items, equally likely ones of the whole catalog, that a rank's rows (positions,) have as targets, and those that
    its sequences (positions / length, length) are made of; every place of a sequence is one of the rows."""
    random = np.random.default_rng([0, rank])
    inputs = random.integers(case.items, size=(case.positions // max(case.length, 1), case.length), dtype=np.int32)
    return random.integers(case.items, size=case.positions, dtype=np.int32), inputs

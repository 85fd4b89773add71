"""Which items of the catalog a ranking is about."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError

Ids = npt.ArrayLike


def candidates_of(
    num_items: int, candidates: Ids | None = None, excluded: Ids | None = None
) -> npt.NDArray[np.bool_] | None:
    """Whether each of V items may be ranked: (V,) bool, True for ``candidates``, by default for all, without
    ``excluded``; None where nothing is left out. Raises ``ConfigError`` for ids that are no items and for no candidate.
    """
    if candidates is None and excluded is None:
        return None
    mask = np.full(num_items, candidates is None)
    for name, ids, value in (("candidates", candidates, True), ("excluded", excluded, False)):
        if ids is None:
            continue
        array = np.asarray(ids)
        if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
            raise ConfigError(f"{name}: expected item ids (n,), got {array.dtype} of shape {array.shape}")
        if array.size and (array.min() < 0 or array.max() >= num_items):
            raise ConfigError(f"{name}: expected ids in [0, {num_items}), got {array.min()}..{array.max()}")
        mask[array.astype(np.int64)] = value
    if not mask.any():
        raise ConfigError("candidates: expected at least one that is not excluded, got none")
    return mask

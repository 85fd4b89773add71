"""Items that rows must not count as negatives: what a user passes, and how to make it from pairs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ArgumentTypeError, ArgumentValueError
from ..numbers import as_index


class History(NamedTuple):
    """Users' own items in compressed rows, and which user each row is of; integer arrays of the framework in use.

    users: (...), the shape of the loss's target; offsets: (U + 1,), ascending from 0; items: the items of user u are
    ``items[offsets[u] : offsets[u + 1]]``, in ascending order,
    each once. ``user_items`` makes the last two. Keep one history for a training: kernels are prepared for its number
    of items, and JAX compiles for it.
    """

    users: Any
    offsets: Any
    items: Any


def user_items(users: ArrayLike, items: ArrayLike, num_users: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(offsets, items) of a ``History`` from pairs (n,) of users in [0, num_users) and items, in any order and with
    repetitions.

    Raises ArgumentTypeError or ArgumentValueError for arrays that are no such integers.
    """
    num_users = as_index("num_users", num_users)
    of_pairs = {"users": np.asarray(users), "items": np.asarray(items)}
    for argument, values in of_pairs.items():
        if values.dtype.kind not in "iu" and values.size:
            raise ArgumentTypeError(argument, "integers", str(values.dtype))
        if values.ndim != 1 or len(values) != len(of_pairs["users"]):
            raise ArgumentValueError(argument, "one for each pair (n,)", values.shape)
        if values.size and not (values.min() >= 0 and values.max() < (num_users if argument == "users" else 2**31)):
            raise ArgumentValueError(
                argument, f"numbers from 0, users below {num_users}", f"{values.min()} to {values.max()}"
            )
    pairs = np.unique(np.stack(list(of_pairs.values()), 1).astype(np.int64), axis=0)
    offsets = np.searchsorted(pairs[:, 0], np.arange(num_users + 1))
    return offsets.astype(np.int32), pairs[:, 1].astype(np.int32)


def shard_user_items(
    offsets: ArrayLike, items: ArrayLike, *, num_shards: int, shard: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(offsets, items) of a ``History`` in one of ``num_shards`` shards of a catalog, from those of all items: what of
    users' items the shard has, item i of shard i mod num_shards as place i // num_shards.

    Raises ArgumentTypeError or ArgumentValueError for numbers outside their domains and arrays of no history.
    """
    num_shards, shard = as_index("num_shards", num_shards), as_index("shard", shard)
    if num_shards < 1:
        raise ArgumentValueError("num_shards", "an int, at least 1", num_shards)
    if not 0 <= shard < num_shards:
        raise ArgumentValueError("shard", f"an int in [0, {num_shards})", shard)
    ends, known = np.asarray(offsets), np.asarray(items)
    for argument, values in {"offsets": ends, "items": known}.items():
        if values.dtype.kind not in "iu" or values.ndim != 1:
            raise ArgumentTypeError(argument, "an array of integers (n,)", f"{values.dtype} {values.shape}")
    if not len(ends) or ends[0] != 0 or ends[-1] != len(known) or (np.diff(ends) < 0).any():
        raise ArgumentValueError("offsets", f"offsets ascending from 0 to the {len(known)} items", ends)
    owned = known % num_shards == shard
    before = np.append(0, np.cumsum(owned))
    return before[ends].astype(np.int32), (known[owned] // num_shards).astype(np.int32)


def check_history(users: NDArray[Any], offsets: NDArray[Any], items: NDArray[Any], num_items: int) -> None:
    """Raise ArgumentValueError where the arrays are no ``History`` on a catalog of ``num_items``."""
    num_users = len(offsets) - 1
    whole = offsets[0] == 0 and offsets[-1] == len(items) and (np.diff(offsets) >= 0).all()
    if not whole:
        raise ArgumentValueError("history", f"offsets ascending from 0 to the {len(items)} items", offsets)
    first_of_user = np.zeros(len(items) + 1, bool)
    first_of_user[offsets] = True
    rises = np.ones(len(items), bool)
    rises[1:] = (np.diff(items.astype(np.int64)) > 0) | first_of_user[1:-1]
    wrong = {
        f"users in [0, {num_users})": users[(users < 0) | (users >= num_users)],
        f"items in [0, {num_items})": items[(items < 0) | (items >= num_items)],
        "each user's items in ascending order, each once": items[~rises],
    }
    for expected, values in wrong.items():
        if values.size:
            raise ArgumentValueError("history", expected, int(values.reshape(-1)[0]))

"""What a sampler answers of itself: the base of all samplers, and how a text stands for one."""

from __future__ import annotations

import ast
import functools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary, WeakSet

import numpy as np
from numpy.typing import NDArray

from ..draws.draw import Draw
from ..draws.lists import Part
from ..draws.shard import Shard
from ..errors import ArgumentTypeError, ArgumentValueError
from ..numbers import as_index

MIN_GROUP, MAX_GROUP = 16, 256  # a tensor-core tile needs 16 rows; draws shared by more than 256 rows cost quality
MOST_LISTED = 1 << 20  # items of a group's list


class Probabilities(NamedTuple):
    """What kernels read of a sampler's draw probabilities q, made once for a catalog.

    ``slot_ends`` (V,) int32 of each part that is drawn by slots. ``log_weight`` (V,) fp32: -log(V q) as far as q is
    known beforehand, without rows' targets, or (1,) where it is the same of all items; None where it is 1 / V, or
    nothing is known.
    """

    slot_ends: NDArray[np.int32] | None = None
    log_weight: NDArray[np.float32] | None = None


class Negatives:
    """A sampler: a frozen dataclass that says how it draws. All answers follow from its fields and the catalog's size.

    A new one is a file with a subclass, a line in ``samplers.py`` and a test; see CONTRIBUTING.
    """

    not_binary: str | None = None
    """Why binary cross-entropy is not defined with it, if it is not."""
    in_batch = False
    """Whether rows' targets are among the negatives."""
    whole_in_text = True
    """Whether ``text`` holds all of it; otherwise it must ``keep_by_text`` itself."""

    def draw(self, num_items: int) -> Draw:
        """Its draw from a catalog of ``num_items`` items."""
        raise NotImplementedError

    def part(self, num_items: int) -> Part | None:
        """Its columns in the list of a mixture; None where it can't be part of one."""
        return None

    def probabilities(self, num_items: int) -> Probabilities:
        """Its draw probabilities; uniform unless it says otherwise."""
        return Probabilities()

    def sampling_rate(self, num_items: int) -> float | None:
        """K / (V - 1), at most 1, of uniform draws without replacement; None of others."""
        return None

    def of_shard(self, shard: Shard) -> Negatives:
        """What draws its negatives in a shard of the catalog, as places of it; raises where shards can't share them."""
        expected = "a sampler that shards of a catalog can share"
        raise ArgumentTypeError("negatives", expected, type(self).__name__)

    group_size: Any
    """Rows of a group, an int; None stands for all rows."""
    shuffle_rows: bool
    text: str
    """What stands for the sampler where a graph compiler takes numbers and texts only: how it is constructed, set once
    by ``tell``; see ``sampler_of``."""

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        """Copies, in other processes too, are constructed anew."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]


_kept: defaultdict[str, WeakSet[Negatives]] = defaultdict(WeakSet)


def tell(sampler: Negatives, arguments: str) -> None:
    """Set the text of a sampler that is constructed with these arguments."""
    object.__setattr__(sampler, "text", f"{type(sampler).__name__}({arguments})")


def keep_by_text(sampler: Negatives) -> None:
    """Let ``sampler_of`` find a sampler whose text does not hold all of it, as long as it lives."""
    _kept[sampler.text].add(sampler)


def sampler_of(text: str, kinds: tuple[type[Negatives], ...]) -> Negatives:
    """A sampler of one of the ``kinds`` by its text; raises ArgumentValueError where it was kept and is gone."""
    if living := list(_kept.get(text, ())):
        return living[0]
    return _made_of(text, kinds)


@functools.lru_cache(maxsize=256)
def _made_of(text: str, kinds: tuple[type[Negatives], ...]) -> Negatives:
    by_name = {kind.__name__: kind for kind in kinds}

    def value_of(node: ast.expr) -> Any:
        if isinstance(node, ast.Call):
            return by_name[ast.unparse(node.func)](*map(value_of, node.args))
        return ast.literal_eval(node)

    try:
        return value_of(ast.parse(text, mode="eval").body)
    except (KeyError, ValueError):
        raise ArgumentValueError("negatives", "a sampler that a compiled program was made with, alive", text) from None


T = TypeVar("T")


def kept_with_sampler(make: Callable[..., T]) -> Callable[..., T]:
    """``make(sampler, *rest)``, computed once for a sampler and the rest, and kept no longer than the sampler lives."""
    kept: WeakKeyDictionary[Negatives, dict[tuple[object, ...], T]] = WeakKeyDictionary()

    @functools.wraps(make)
    def get(sampler: Negatives, *rest: object) -> T:
        of_sampler = kept.setdefault(sampler, {})
        if rest not in of_sampler:
            of_sampler[rest] = make(sampler, *rest)
        return of_sampler[rest]

    return get


def check_share(draws: int, shard: Shard) -> int:
    """A shard's share of draws; raises where there are fewer than shards, as some items could never be drawn."""
    if draws < shard.num_shards:
        raise ArgumentValueError("negatives", f"num_negatives of {shard.num_shards} or more, one a shard", draws)
    return shard.share(draws)


def check_count(sampler: object, option: str, limit: int = 2**31) -> None:
    """Raise for a number of items outside [1, limit); turns an integer-like one into an int."""
    value = as_index(option, getattr(sampler, option))
    if not 1 <= value < limit:
        raise ArgumentValueError(option, f"an int in [1, {limit})", value)
    object.__setattr__(sampler, option, value)


def check_groups(sampler: object, smallest_group: int = MIN_GROUP) -> None:
    """Raise for options outside their domains; turns integer-like ones into ints."""
    group = as_index("group_size", sampler.group_size)  # type: ignore[attr-defined]
    grouped = MIN_GROUP <= group <= MAX_GROUP and group & (group - 1) == 0
    if not (grouped or group == smallest_group):
        alone = "1 or " if smallest_group == 1 else ""
        raise ArgumentValueError("group_size", f"{alone}a power of two from {MIN_GROUP} to {MAX_GROUP}", group)
    object.__setattr__(sampler, "group_size", group)
    check_shuffle(sampler)


def check_shuffle(sampler: object) -> None:
    shuffle = sampler.shuffle_rows  # type: ignore[attr-defined]
    if not isinstance(shuffle, bool):
        raise ArgumentTypeError("shuffle_rows", "a bool", type(shuffle).__name__)

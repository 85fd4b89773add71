"""The static description of one loss call: shapes, choices, candidates, and a plan for each family of kernels.

It is hashable, so that it can key a compiled graph, and says nothing of the values on the device.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Literal, NamedTuple

from ..draws.draw import Correction, Draw, Mode
from ..draws.lists import ListDraws
from ..draws.uniform import GroupedDraws, IndependentDraws
from ..numbers import ceil_div
from .gathered import Gathered
from .listed import Listed
from .tiled import Tiled
from .tiles import GatherConfig, Gpu, gather_config

Dtype = Literal["float32", "float16", "bfloat16", "int32"]

NO_ID = 2**31 - 1  # what rows without a target, malformed ids and empty slots are sorted as: behind every item
INTERPRETER_GPU = Gpu(4, 90)  # stands in for a device when kernels run in Triton's interpreter
POSITIVE_CHUNK = 64  # sorted rows whose positives are added together
ELSEWHERE = -2  # the target of rows that count and whose positive is another shard's


class HistorySize(NamedTuple):
    """How many users' items there are."""

    num_users: int
    num_known: int


@dataclass(frozen=True)
class Shapes:
    """A call's sizes, dtypes and device; ``history`` of rows' own items, which are no negatives."""

    num_rows: int
    dim: int
    num_items: int
    input_dtype: Dtype
    weight_dtype: Dtype
    bias_dtype: Dtype | None
    history: HistorySize | None
    gpu: Gpu


@dataclass(frozen=True)
class Choices:
    """A call's checked options, as both frameworks hand them down.

    ``scale_grad``: whether the scale is a tensor whose gradient may be asked for. ``positive_weight``: of the
    positive's term in binary cross-entropy; None for the softmax. ``correction``: whether kept draws stand for V - 1
    items ("uniform"), by items' log weights for all the others ("weighted"), for V / pool items each ("pool"), or for
    themselves ("none"). ``is_shard``: targets may be ELSEWHERE, where negatives stand for all V items, and what comes
    of rows is not joined yet: in place of loss and lse the positive's score, minus infinity of one elsewhere, and the
    negatives' logsumexp.
    """

    softcap: float | None
    remove_accidental_hits: bool
    ignore_index: int
    scale_grad: bool
    positive_weight: float | None
    correction: Correction
    is_shard: bool


class Kind(NamedTuple):
    """What a mode's candidates are to the kernels; nothing else looks at a mode's name.

    ``source``: the device code's name for it. ``tiled``: rows of a tile share candidates, so that scores are matrix
    products; otherwise each row gathers its own. ``of_groups``: every group has candidates of its own. ``by_id``:
    candidates are ids that may come again, not positions of the catalog, each of which comes once.
    """

    source: str
    tiled: bool = False
    of_groups: bool = False
    by_id: bool = False


KINDS: Mapping[Mode, Kind] = {
    "grouped": Kind("GROUPED", tiled=True, of_groups=True),
    "all": Kind("ALL", tiled=True),
    "member": Kind("MEMBER", tiled=True),
    "shared_ids": Kind("SHARED", tiled=True, by_id=True),
    "group_ids": Kind("LISTED", tiled=True, of_groups=True, by_id=True),
    "independent": Kind("ROUNDS"),
    "row_ids": Kind("ROW_IDS", by_id=True),
}


class Wanted(NamedTuple):
    """The gradients that a backward is asked for; others are neither computed nor allocated."""

    input: bool = True
    weight: bool = True
    bias: bool = True
    scale: bool = True

    @property
    def items(self) -> bool:
        """Whether anything of the items is asked for."""
        return self.weight or self.bias


EVERY_GRADIENT = Wanted()


@dataclass(frozen=True)
class Problem(Shapes, Choices):
    """One call: its shapes and choices, how its candidates come about, and in the backward the gradients asked for."""

    draw: Draw
    wanted: Wanted = EVERY_GRADIENT

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, each.name) for each in fields(self)))

    def __hash__(self) -> int:  # it is looked up at every call
        return self._hash

    @cached_property
    def kind(self) -> Kind:
        return KINDS[self.draw.mode]

    @property
    def mode(self) -> Mode:
        return self.draw.mode

    @property
    def negatives(self) -> int:
        """K, the candidates of a row; V when every item is one."""
        return self.draw.negatives

    @property
    def group_size(self) -> int:
        return self.draw.group_size

    @property
    def shuffle_rows(self) -> bool:
        return self.draw.shuffle_rows

    @property
    def lists(self) -> ListDraws | None:
        """How groups draw their lists, or choose them from given ids; None where they are given, or there are none."""
        return self.draw.lists

    @property
    def draws(self) -> GroupedDraws | IndependentDraws | None:
        return self.draw.uniform

    @property
    def chooses(self) -> bool:
        """Whether lists are the highest-scoring columns of a pool, which is scored before the forward."""
        return self.lists is not None and self.lists.chooses

    @property
    def catalog(self) -> int:
        """The items that are drawn from and corrected for; of a working set the table has fewer rows."""
        return self.draw.catalog or self.num_items

    @property
    def given_places(self) -> int:
        """Of a working set: places of drawn items, of every slot of every group as many as a block's."""
        return self.num_groups * self.tiled.slots * self.tiled.block if self.draw.given and self.tiled else 0

    @property
    def positions(self) -> int:
        """What candidates and targets are told by: positions of the item permutation, or of a working set the drawn
        items', and behind them every row's."""
        return self.given_places + self.num_items

    @property
    def draw_weight(self) -> float:
        """How many items a kept draw stands for, where its probability is not corrected for."""
        columns = self.lists.columns if self.lists else self.negatives
        return self.catalog / columns if self.correction == "pool" else 1.0

    @property
    def is_binary(self) -> bool:
        return self.positive_weight is not None

    @property
    def num_groups(self) -> int:
        return ceil_div(self.num_rows, self.group_size)

    @cached_property
    def tiled(self) -> Tiled | None:
        """The plan of kernels on tiles of rows that share candidates."""
        return Tiled(self) if self.kind.tiled else None

    @cached_property
    def gathered(self) -> Gathered | None:
        """The plan of kernels on rows with candidates of their own."""
        return None if self.kind.tiled else Gathered(self)

    @cached_property
    def listed(self) -> Listed | None:
        """The plan of what groups' lists need beside the tiles."""
        return Listed(self) if self.kind.by_id and self.kind.of_groups else None

    @cached_property
    def row_work(self) -> GatherConfig:
        """Chunks of the width where rows are handled one by one."""
        return gather_config(self.input_dtype, self.dim)

    @property
    def permutes_items(self) -> bool:
        """Whether candidates are positions of the step's one item permutation."""
        if isinstance(self.draws, IndependentDraws):
            return not self.kind.tiled and self.draws.strata > 1
        return self.draws is not None

    @property
    def drawn_domain(self) -> int:
        """Size of what the rounds permute: the blocks of grouped rows, the places of a stratum of independent ones."""
        if isinstance(self.draws, IndependentDraws):
            return self.draws.width
        return self.draws.num_blocks if self.draws is not None and self.draws.groups_per_round else 1

    @property
    def rounds(self) -> int:
        """Rounds of the draw: groups or rows between which no block, or no place, comes twice."""
        if isinstance(self.draws, IndependentDraws):
            return ceil_div(self.num_rows, self.draws.rows_per_round)
        if self.draws is None or not self.draws.groups_per_round:
            return 0
        return ceil_div(self.num_groups, self.draws.groups_per_round)

    @property
    def key_rounds(self) -> int:
        """Permutations of ``drawn_domain`` whose keys a step needs."""
        return self.rounds * (self.draws.strata if isinstance(self.draws, IndependentDraws) else 1)

    @property
    def no_key(self) -> int:
        """What rows without a target are sorted by: behind every item, and before the draws of lists."""
        return self.num_items if self.listed else NO_ID

    @property
    def segment_unit(self) -> int:
        """Positions of one segment of sorted positives: a block's, or one item's where programs serve single items."""
        return self.tiled.block if self.tiled and not self.tiled.grad_splits else 1

    @property
    def segments(self) -> int:
        return ceil_div(self.positions, self.segment_unit)

    @property
    def sorts_draws(self) -> bool:
        """Whether the item gradient needs the explicit ids sorted, apart from rows' targets."""
        return self.kind.by_id and not self.kind.of_groups


def build_problem(shapes: Shapes, choices: Choices, draw: Draw, wanted: Wanted = EVERY_GRADIENT) -> Problem:
    """The problem of a call on flat rows."""
    bias, scale = wanted.bias and shapes.bias_dtype is not None, wanted.scale and choices.scale_grad
    wanted = wanted._replace(bias=bias, scale=scale)
    return Problem(**vars(choices), **vars(shapes), draw=draw, wanted=wanted)


# what follows from the shapes is worked out once: a small step's host time is mostly launches
cached_problem = lru_cache(maxsize=256)(build_problem)


def interprets() -> bool:
    """Whether Triton kernels run in Triton's interpreter, on CPU arrays."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")

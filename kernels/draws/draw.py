"""How a call's candidates come about, in static numbers: what a sampler answers, and what explicit ids are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from .lists import ListDraws
from .uniform import GroupedDraws, IndependentDraws

Mode = Literal["grouped", "independent", "member", "all", "shared_ids", "row_ids", "group_ids"]
Correction = Literal["none", "uniform", "weighted", "pool"]


@dataclass(frozen=True)
class Draw:
    """A call's candidates.

    ``mode``: grouped and independent uniform draws; member: independent ones of more than half the catalog; all: every
    item; ids shared by all rows, of each row, or of each group of rows, drawn by ``lists`` or given. ``negatives``: K,
    candidates of a row; 0 where rows' targets will tell. ``correction``: what kept draws stand for where their
    probabilities are the sampler's own, see ``Options``. ``random``: whether the seed matters. ``targets``: the ids are
    all rows' targets. ``full_lists``: whether groups' ids hold items only. ``catalog``: the items that are drawn from,
    where the table is the rows of a working set and what is drawn, or chosen from, comes with the call as places among
    them; 0 where all of them are the table.
    """

    mode: Mode
    negatives: int = 0
    group_size: int = 1
    shuffle_rows: bool = False
    uniform: GroupedDraws | IndependentDraws | None = None
    lists: ListDraws | None = None
    correction: Correction = "uniform"
    random: bool = True
    targets: bool = False
    full_lists: bool = False
    catalog: int = 0

    @property
    def batch_share(self) -> float:
        """The share of candidates whose probabilities the caller's ``log_q`` tells: explicit ids, rows' targets."""
        return self.lists.batch_share if self.lists else 1.0

    @property
    def given(self) -> bool:
        """Whether each drawn row comes with the call as a position of its own, in place of an item permutation's."""
        return self.catalog > 0 and self.uniform is not None

    @property
    def draws_lists(self) -> bool:
        """Whether groups' lists, or what these are chosen from, are drawn by the call."""
        return self.lists is not None and not self.catalog

    @property
    def follows_seed(self) -> bool:
        """Whether the seed alone tells which items are drawn, without targets or scores."""
        has_rows = self.targets or (self.lists is not None and self.lists.has_rows)
        return not (has_rows or self.correction == "pool")


def all_items(num_items: int) -> Draw:
    """Every item is a candidate of every row."""
    return Draw("all", num_items, random=False)


def listed(lists: ListDraws, group_size: int, shuffle_rows: bool, correction: Correction = "uniform") -> Draw:
    """Groups of rows draw a list each."""
    full = not lists.has_rows
    return Draw(
        "group_ids", lists.negatives, group_size, shuffle_rows, lists=lists, correction=correction, full_lists=full
    )


def given_ids(shape: tuple[int, ...], group_size: int = 1) -> Draw:
    """Explicit ids of a ``shape``: (K,), (N, K), or with a ``group_size`` above 1 (groups, K), which are all items."""
    if group_size > 1:
        return Draw("group_ids", shape[-1], group_size, random=False, full_lists=True)
    return Draw("row_ids" if len(shape) == 2 else "shared_ids", shape[-1], random=False)


def on_rows(draw: Draw, catalog: int) -> Draw:
    """A draw from ``catalog`` items, for a call on the rows of a working set."""
    chooses = draw.lists is not None and draw.lists.chooses
    return replace(draw, lists=draw.lists if chooses else None, catalog=catalog)

"""Rows of an item table in the host's memory, read while the step before the one that needs them computes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..loss.working_set import WorkingSet
from ..tables.item_table import ItemTable
from ..tables.read import rows_of


class RowsAhead:
    """The working set of a step, ``given``, and its rows of ``table``, both in memory that stays theirs: a CUDA graph
    of a step reads them there, has the next step's fetched beside its own work, and leaves them there at its end."""

    given: WorkingSet
    _values: Tensor

    def __init__(self, table: ItemTable, first: WorkingSet) -> None:
        self.table = table
        self.given = first._replace(**{name: part.clone() for name, part in _tensors(first).items()})
        self._values = rows_of(table.weight, first)

    @torch.no_grad()
    def start(self, first: WorkingSet) -> None:
        """Begins anew with the working set of a step that none before it has fetched."""
        self._take(first, rows_of(self.table.weight, first))

    def rows(self) -> Tensor:
        """The rows (T, D) of ``given``, a leaf."""
        self.table.hold(self.given, self._values.detach())
        return self.table(self.given)

    def fetch(self, later: WorkingSet) -> None:
        """Begins to read the rows of the next step's working set."""
        self._later = later
        self.table.fetch(later)

    @torch.no_grad()
    def turn(self) -> None:
        """Goes on to what has been fetched, once the step's rows have moved."""
        values = self.table.fetched(self._later)
        assert values is not None
        self._take(self._later, values)

    def _take(self, given: WorkingSet, values: Tensor) -> None:
        held = _tensors(self.given)
        for name, part in _tensors(given).items():
            held[name].copy_(part)
        self._values.copy_(values)


def _tensors(given: WorkingSet) -> dict[str, Tensor]:
    return {name: part for name, part in given._asdict().items() if isinstance(part, Tensor)}

"""Rows of an item table in the host's memory, read while the step before the one that needs them computes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..loss.working_set import WorkingSet
from ..tables.item_table import ItemTable
from ..tables.row_copies import Moved, fetch_rows, write_rows


class RowsAhead:
    """The working set of a step, ``given``, its rows of ``table``, and those that moved in the step before, all in
    memory that stays theirs: a CUDA graph of a step reads them there, has the next step's rows fetched and the last
    one's written beside its own work, and leaves there what the next step needs."""

    def __init__(self, table: ItemTable, first: WorkingSet) -> None:
        self.table = table
        self.given = first._replace(**{name: part.clone() for name, part in _tensors(first).items()})
        self._held = fetch_rows(table.weight.detach(), first.ids)
        self._moved = Moved(first.ids.clone(), torch.zeros_like(first.count), self._held.clone())

    @torch.no_grad()
    def start(self, first: WorkingSet) -> None:
        """Begins anew with the working set of a step that none before it has fetched."""
        self.end()
        self._take(first, fetch_rows(self.table.weight.detach(), first.ids))

    def rows(self) -> Tensor:
        """The rows (T, D) of ``given``, a leaf."""
        self.table.ahead.hold(self.given, self._held, self._moved)
        return self.table(self.given)

    def fetch(self, later: WorkingSet) -> None:
        """Begins to write what moved in the step before, and to read the rows of the next step's working set."""
        self._later = later
        self.table.fetch(later)

    @torch.no_grad()
    def turn(self) -> None:
        """Goes on to what has been fetched, once the step's rows have moved."""
        held, moved = self.table.ahead.take(self._later), self.table.ahead.unwritten()
        assert held is not None
        assert moved is not None
        for own, part in zip(self._moved, moved, strict=True):
            own.copy_(part)
        self._take(self._later, held)

    @torch.no_grad()
    def end(self) -> None:
        """Has the table be as it is after the last step."""
        write_rows(self.table.weight.detach(), self._moved)
        self._moved.count.zero_()

    def _take(self, given: WorkingSet, rows: Tensor) -> None:
        held = _tensors(self.given)
        for name, part in _tensors(given).items():
            held[name].copy_(part)
        self._held.copy_(rows)


def _tensors(given: WorkingSet) -> dict[str, Tensor]:
    return {name: part for name, part in given._asdict().items() if isinstance(part, Tensor)}

"""Rows of a table that are read a step ahead, and written a step behind, on a stream of their own."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..loss.working_set import WorkingSet
from .row_copies import Moved, fetch_rows, refresh_rows, write_rows
from .row_set import RowSet


class _Held(NamedTuple):
    """Rows and their numbers (T, D) in the table's dtype, there once ``read`` has happened."""

    rows: RowSet | WorkingSet
    values: Tensor
    read: torch.cuda.Event | None = None


class FetchedRows:
    """What is on its way between a table ``weight`` and its steps.

    In step s, `fetch` begins to read the rows of step s+1 while `held` is what step s took; what moves of `held` is
    `moved`: the `fetch` of step s+1 writes it to the table, while it reads the rows of step s+2. Those of step s+1 and
    s+2 that are among it are taken from it. So each row is the one that it is now, and neither reading nor writing is
    waited for.
    """

    def __init__(self) -> None:
        self._stream: torch.cuda.Stream | None = None
        self._next: _Held | None = None
        self._now: _Held | None = None
        self._fresh: list[Moved] = []  # what the next rows may have been read without
        self._unwritten: Moved | None = None
        self._is_busy = False  # the stream, as far as is known here

    def fetch(self, weight: Tensor, rows: RowSet | WorkingSet) -> None:
        unwritten, read = self.unwritten(), None
        if weight.is_cuda:
            with torch.cuda.device(weight.device):
                stream = self._stream = self._stream or torch.cuda.Stream()
                stream.wait_stream(torch.cuda.current_stream())  # for the ids, and for what has moved
                with torch.cuda.stream(stream):
                    for tensor in (rows.ids, *(unwritten or ())):
                        tensor.record_stream(stream)
                    values, read = fetch_rows(weight, rows.ids, unwritten), torch.cuda.Event()
                    read.record()
                self._is_busy = True
        else:
            values = fetch_rows(weight, rows.ids, unwritten)
        self._next, self._fresh = _Held(rows, values, read), [unwritten] if unwritten is not None else []

    def take(self, rows: RowSet | WorkingSet) -> Tensor | None:
        """The rows (T, D) as they are now, in the table's dtype; None where others were fetched, or none."""
        (taken, self._next), (fresh, self._fresh) = (self._next, None), (self._fresh, [])
        self._now = None
        if taken is None or taken.rows.ids is not rows.ids:
            return None
        if taken.read is not None:
            current = torch.cuda.current_stream(taken.values.device)
            current.wait_event(taken.read)
            self._is_busy = False
            taken.values.record_stream(current)
        for moved in fresh:
            refresh_rows(taken.values, rows.ids, moved)
        self._now = taken
        return taken.values

    def hold(self, rows: RowSet | WorkingSet, values: Tensor, unwritten: Moved) -> None:
        """Goes on as if ``values`` had been fetched, and ``unwritten`` had moved before."""
        self._next, self._fresh, self._unwritten = _Held(rows, values), [], unwritten

    def held(self, ids: Tensor) -> Tensor | None:
        """The rows that the step has taken, to be moved apart from the table while those of the next step are read;
        None where nothing is read, or other rows than ``ids`` move."""
        if self._next is None or self._now is None or self._now.rows.ids is not ids:
            return None
        return self._now.values

    @property
    def is_reading(self) -> bool:
        """Whether rows have been fetched that nobody has taken yet."""
        return self._next is not None

    def moved(self, moved: Moved, *, is_written: bool) -> None:
        """Tells that rows are others now, and whether they are so in the table."""
        if not is_written:
            self._unwritten = moved
        if self._next is not None:
            self._fresh.append(moved)

    def unwritten(self) -> Moved | None:
        """What is to be written, by who asks for it."""
        unwritten, self._unwritten = self._unwritten, None
        return unwritten

    def settle(self, weight: Tensor) -> None:
        """Has the table be as it is now for what comes next on this stream: rows may move in it itself."""
        self._now = None
        if self._is_busy and self._stream is not None:
            torch.cuda.current_stream(weight.device).wait_stream(self._stream)
            self._is_busy = False
        if (unwritten := self.unwritten()) is not None:
            write_rows(weight, unwritten)

    def drop(self) -> None:
        """Forgets what has been fetched."""
        self._next, self._fresh = None, []

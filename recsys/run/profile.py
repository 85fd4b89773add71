"""Where the seconds of a run go."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_NONE = object()

PROFILE = "profile.json"


@dataclass
class Part:
    """A part of the work: its seconds on the host's clock, and how often it was done."""

    seconds: float = 0.0
    count: int = 0


class Profile:
    """Seconds by part, as the host sees them: a part that leaves work to the device ends when the host goes on.

    An epoch's steps end when their losses are there, so that over an epoch the device's time is in "steps". A part
    inside another is not counted in that one; what is in none is "other".
    """

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._parts: dict[str, Part] = {}
        self._inside = [0.0]  # of the parts that are open: seconds of those in them

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times what is done inside."""
        began = time.perf_counter()
        self._inside.append(0.0)
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            part = self._parts.setdefault(name, Part())
            part.seconds += seconds - self._inside.pop()
            part.count += 1
            self._inside[-1] += seconds

    def waits(self, items: Iterable[T], name: str) -> Iterator[T]:
        """``items``, the time until each is there in the part ``name``."""
        iterator = iter(items)
        while True:
            with self.part(name):
                item = next(iterator, _NONE)
            if item is _NONE:
                return
            yield item  # pyright: ignore[reportReturnType]

    def table(self) -> dict[str, Part]:
        """The parts in the order in which they were first done, "other" and "whole"."""
        whole = time.perf_counter() - self._began
        other = whole - sum(part.seconds for part in self._parts.values())
        return {**self._parts, "other": Part(other, 1), "whole": Part(whole, 1)}

    def write(self, path: Path) -> str:
        """Writes the parts as JSON and returns them as a table for a terminal."""
        table = self.table()
        parts = [{"name": name, "seconds": part.seconds, "count": part.count} for name, part in table.items()]
        path.write_text(json.dumps({"parts": parts}, indent=2) + "\n", encoding="utf-8")
        width = max(map(len, table))
        return "\n".join(f"{name:<{width}}  {part.seconds:9.3f} s  {part.count:6}" for name, part in table.items())

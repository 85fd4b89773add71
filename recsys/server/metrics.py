"""What a server counts, in Prometheus' text format."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

Labels = tuple[tuple[str, str], ...]


class Histogram:
    """How many values are at most each of ``bounds``, which ascend."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._counts, self._sum = bounds, [0] * (len(bounds) + 1), 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str) -> Iterator[str]:
        below = 0
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            below += count
            yield f'{name}_bucket{{le="{bound}"}} {below}'
        yield f"{name}_sum {self._sum:.6f}"
        yield f"{name}_count {below}"


class Metrics:
    """Counts of one server; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[Labels] = Counter()
        self._reloads: Counter[Labels] = Counter()
        self._seconds, self._rows, self._batched = Histogram(SECONDS), Histogram(ROWS), Histogram(ROWS)

    def request(self, path: str, status: int, seconds: float) -> None:
        """One that was answered; ``path`` is one of the server's own, so that strangers make no labels."""
        with self._lock:
            self._requests[("path", path), ("status", str(status))] += 1
            self._seconds.add(seconds)

    def batch(self, requests: int, rows: int) -> None:
        """One call of the model."""
        with self._lock:
            self._batched.add(requests)
            self._rows.add(rows)

    def reload(self, outcome: str) -> None:
        """A run taken up anew, or one that could not be: ``loaded`` or ``refused``."""
        with self._lock:
            self._reloads[(("outcome", outcome),)] += 1

    def text(self, waiting: int, is_loaded: bool) -> str:
        """All of them, with how many requests wait now."""
        with self._lock:
            lines = [
                *_counter("cce_minus_requests_total", "Requests by path and status.", self._requests),
                *_histogram("cce_minus_request_seconds", "Seconds from a request's head to its answer.", self._seconds),
                *_histogram("cce_minus_batch_requests", "Requests answered by one call of the model.", self._batched),
                *_histogram("cce_minus_batch_rows", "Rows answered by one call of the model.", self._rows),
                *_counter("cce_minus_reloads_total", "Runs loaded after the first, and refused ones.", self._reloads),
                *_gauge("cce_minus_waiting_requests", "Requests that wait for the model.", waiting),
                *_gauge("cce_minus_loaded", "Whether a run is loaded.", int(is_loaded)),
            ]
        return "\n".join(lines) + "\n"


def _head(name: str, told: str, kind: str) -> Iterator[str]:
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {kind}"


def _counter(name: str, told: str, counts: Mapping[Labels, int]) -> Iterator[str]:
    yield from _head(name, told, "counter")
    for labels, count in sorted(counts.items()):
        told_labels = ",".join(f'{label}="{value}"' for label, value in labels)
        yield f"{name}{{{told_labels}}} {count}"


def _gauge(name: str, told: str, value: int) -> Iterator[str]:
    yield from _head(name, told, "gauge")
    yield f"{name} {value}"


def _histogram(name: str, told: str, values: Histogram) -> Iterator[str]:
    yield from _head(name, told, "histogram")
    yield from values.lines(name)

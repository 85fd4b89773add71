"""What a server takes at most, of each request and of all at once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..option_checks import check_type, require


@dataclass(frozen=True)
class Limits:
    """Bounds of a server; raises ``ConfigError`` for one that is no positive number (``batch_ms`` may be 0), and for
    less room for all bodies than for one.

    A request: ``max_body`` bytes, ``max_rows`` users, sequences or items, ``max_ids`` ids in a sequence or among the
    candidates, ``max_k`` items a row and ``max_items`` of an answer, ``timeout`` seconds for its body and as many for
    its answer. A call of the model: ``batch_rows`` rows of waiting requests, for which the first of them waits
    ``batch_ms`` milliseconds. All: ``max_waiting`` requests, ``max_bodies`` bytes of bodies that are not checked yet,
    ``max_connections``, of which one that is silent is kept for ``keep_alive`` seconds; ``max_header`` bytes of a
    request's head.
    """

    max_body: int = 2**20
    max_rows: int = 256
    max_ids: int = 10_000
    max_k: int = 1000
    max_items: int = 50_000
    timeout: float = 10.0
    batch_rows: int = 64
    batch_ms: float = 2.0
    max_waiting: int = 1024
    max_bodies: int = 2**26
    max_connections: int = 2048
    keep_alive: int = 5
    max_header: int = 2**14

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            check_type(field.name, value, float if field.type == "float" else int)
            if field.name == "batch_ms":
                require(0 <= value < float("inf"), field.name, "a number from 0 up", value)
            else:
                require(0 < value < float("inf"), field.name, "a positive number", value)
        require(self.max_bodies >= self.max_body, "max_bodies", f"at least max_body = {self.max_body}", self.max_bodies)

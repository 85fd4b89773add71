"""Clients that ask a server one request after the other, and look at each answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

K = 10


@dataclass
class Tally:
    """What came of all requests: ``milliseconds`` of those that were answered, and how many were not (``dropped``) or
    with what none of the runs recommends (``wrong``)."""

    milliseconds: list[float] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    wrong: int = 0


Expected = Sequence[Sequence[dict[str, Any]]]
"""By history, the items that a run recommends."""


async def load(
    port: int, histories: list[list[int]], expected: Sequence[Expected], *, clients: int, seconds: float
) -> Tally:
    """The tally of so many ``clients``, each with a connection of its own, which ask for the K items after one of the
    ``histories`` for so long; right is what one of the runs ``expected``."""
    tally = Tally()
    until = time.perf_counter() + seconds
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(histories)) for _ in range(clients)]
    await asyncio.gather(*(_client(port, histories, order, expected, until, tally) for order in orders))
    return tally


async def _client(
    port: int, histories: list[list[int]], order: np.ndarray, expected: Sequence[Expected], until: float, tally: Tally
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    turn = 0
    while (began := time.perf_counter()) < until:
        row = int(order[turn % len(order)])
        turn += 1
        try:
            status, body = await _ask(reader, writer, json.dumps({"sequences": [histories[row]], "k": K}).encode())
        except (OSError, EOFError, ValueError) as error:
            tally.dropped.append(repr(error))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        if status != 200:
            tally.dropped.append(f"{status} {body[:100]!r}")
            continue
        tally.milliseconds.append(1000 * (time.perf_counter() - began))
        found = json.loads(body)["rows"][0]
        tally.wrong += not any(same(found, run[row]) for run in expected)
    writer.close()


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> tuple[int, bytes]:
    head = "POST /recommend HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: "
    writer.write(f"{head}{len(body)}\r\n\r\n".encode() + body)
    answer = await reader.readuntil(b"\r\n\r\n")
    lines = answer.lower().split(b"\r\n")
    (length,) = (int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
    return int(lines[0].split()[1]), await reader.readexactly(length)


def same(found: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> bool:
    """Whether these are the same items in the same order with the same scores, but for how sums of float32 are rounded
    in a batch of another size."""
    if len(found) != len(expected) or not np.allclose(_scores(found), _scores(expected), rtol=1e-4, atol=1e-4):
        return False
    pairs = zip(found, expected, strict=True)
    others = [place for place, (ours, theirs) in enumerate(pairs) if ours["item_id"] != theirs["item_id"]]
    scores = _scores(expected)
    # items in other places have scores that are equal up to rounding
    return all(np.sum(np.abs(scores - scores[place]) < 1e-4) > 1 or place == len(scores) - 1 for place in others)


def _scores(items: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([item["score"] for item in items], np.float64)

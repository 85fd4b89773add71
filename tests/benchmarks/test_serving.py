"""Answers under load are looked at, and what is wrong or dropped is counted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from benchmarks.serving.__main__ import COLUMNS, CSV, _table
from benchmarks.serving.clients import load, same
from benchmarks.study.results import read


def items(*pairs: tuple[int, float]) -> list[dict[str, Any]]:
    return [{"item_id": item, "score": score} for item, score in pairs]


@pytest.mark.parametrize(
    ("found", "is_same"),
    [
        (items((1, 3.0), (2, 2.0), (3, 1.0)), True),
        (items((1, 3.00001), (2, 2.0), (3, 1.0)), True),
        (items((1, 3.0), (2, 2.0)), False),
        (items((1, 3.0), (2, 2.1), (3, 1.0)), False),
        (items((1, 3.0), (4, 2.0), (3, 1.0)), False),
        (items((2, 3.0), (1, 2.0), (3, 1.0)), False),
    ],
)
def test_right_answers(found: list[dict[str, Any]], is_same: bool):
    assert same(found, items((1, 3.0), (2, 2.0), (3, 1.0))) is is_same


def test_equal_scores_may_be_in_another_order():
    expected = items((1, 3.0), (2, 2.0), (3, 2.0), (4, 1.0))
    assert same(items((1, 3.0), (3, 2.0), (2, 2.0), (4, 1.0)), expected)


def test_what_is_wrong_or_dropped_is_counted():
    right = items((1, 2.0), (2, 1.0))
    answers = [(200, {"rows": [right]}), (200, {"rows": [items((9, 2.0), (2, 1.0))]}), (503, {"error": "full"}), None]

    async def work():
        turn = 0

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal turn
            while head := await reader.readuntil(b"\r\n\r\n"):
                (length,) = (int(line.split(b":")[1]) for line in head.split(b"\r\n") if b"content-length" in line)
                await reader.readexactly(length)
                found = answers[min(turn, len(answers)) % len(answers)]
                turn += 1
                if found is None:
                    break
                body = json.dumps(found[1]).encode()
                writer.write(f"HTTP/1.1 {found[0]} x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
                await asyncio.sleep(0.02)
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await load(port, [[1]], [[right]], clients=1, seconds=0.5)

    tally = asyncio.run(work())
    assert tally.wrong == 1
    assert tally.dropped[0].startswith("503")
    assert "IncompleteReadError" in tally.dropped[1]
    assert len(tally.milliseconds) > 2


def test_the_readme_has_the_table():
    readme = (CSV.parent.parent / "serving" / "README.md").read_text()
    assert _table(read(CSV, COLUMNS)) in readme

"""Requests that wait are answered together: one call of the model for those of equal options."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from .limits import Limits
from .metrics import Metrics
from .questions import Found, Question


@dataclass(eq=False)
class _Job:
    question: Question
    answer: asyncio.Future[Found]
    began: float = field(default_factory=lambda: asyncio.get_running_loop().time())


class Batcher:
    """Answers questions in one thread, in which alone the model runs; to be used in the event loop that runs `run`."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        self._limits, self._metrics = limits, metrics
        self._waiting: deque[_Job] = deque()
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        """Of those that wait for the model."""
        return len(self._waiting)

    async def ask(self, question: Question) -> Found:
        """What the question asks for; raises what the model refuses. Who is cancelled, as by a timeout, no longer
        waits."""
        job = _Job(question, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrived.set()
        try:
            return await job.answer
        except asyncio.CancelledError:
            if job in self._waiting:
                self._waiting.remove(job)
            raise

    async def run(self) -> None:
        """Answers until it is cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "model") as thread:
            while True:
                await self._arrived.wait()
                await self._gather()
                batch = self._take()
                if not batch:
                    continue
                self._metrics.batch(len(batch), sum(job.question.rows for job in batch))
                answers = await loop.run_in_executor(thread, _answers, [job.question for job in batch])
                for job, answer in zip(batch, answers, strict=True):
                    if job.answer.done():
                        continue
                    if isinstance(answer, Exception):
                        job.answer.set_exception(answer)
                    else:
                        job.answer.set_result(answer)

    async def _gather(self) -> None:
        """Waits until the first request has waited long enough for others, or there are enough."""
        if not self._waiting or sum(job.question.rows for job in self._waiting) >= self._limits.batch_rows:
            return
        age = asyncio.get_running_loop().time() - self._waiting[0].began
        if (left := self._limits.batch_ms / 1000 - age) > 0:
            await asyncio.sleep(left)

    def _take(self) -> list[_Job]:
        """The oldest request and those that one call answers with it, up to the limit of rows."""
        batch: list[_Job] = []
        rows = 0
        others: deque[_Job] = deque()
        for job in self._waiting:
            fits = not batch or (
                rows + job.question.rows <= self._limits.batch_rows and job.question.key == batch[0].question.key
            )
            if fits:
                batch.append(job)
                rows += job.question.rows
            else:
                others.append(job)
        self._waiting = others
        if not others:
            self._arrived.clear()
        return batch


def _answers(questions: list[Question]) -> list[Found | Exception]:
    """By one call; where that fails, each by one of its own, so that none fails for another."""
    try:
        return [*type(questions[0]).together(questions)]
    except Exception as error:
        if len(questions) == 1:
            return [error]
    return [answer for question in questions for answer in _answers([question])]

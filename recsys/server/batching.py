"""Requests that wait are answered together: one call of the model for those of equal options."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from .limits import Limits
from .metrics import Metrics
from .questions import Found, Question
from .worker import Worker, as_exception

logger = logging.getLogger(__name__)


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
        self._rows = 0  # of those that wait
        self._arrived, self._enough = asyncio.Event(), asyncio.Event()

    def __len__(self) -> int:
        """Of those that wait for the model."""
        return len(self._waiting)

    async def ask(self, question: Question) -> Found:
        """What the question asks for; raises what the model raises. Who is cancelled, as by a timeout, no longer
        waits."""
        job = _Job(question, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._count(question.rows)
        try:
            return await job.answer
        except asyncio.CancelledError:
            if job in self._waiting:
                self._waiting.remove(job)
                self._count(-question.rows)
            raise

    async def run(self) -> None:
        """Answers until it is cancelled; a call of the model that is under way then is left to itself."""
        worker = Worker("model")
        try:
            while True:
                await self._arrived.wait()
                await self._gather()
                if batch := self._take():
                    await self._answer(batch, worker)
                del batch  # else its run is kept until the next comes
        finally:
            for job in self._waiting:
                if not job.answer.done():
                    job.answer.set_exception(RuntimeError("server: expected a model that answers, got none"))
            if not worker.close(_PATIENCE):
                logger.error("model: expected its call to end, got one that goes on; it is left behind")

    async def _answer(self, batch: list[_Job], worker: Worker) -> None:
        """Fails those of the batch alone, whatever is raised."""
        self._metrics.batch(len(batch), sum(job.question.rows for job in batch))
        try:
            for job, answer in await worker.do(partial(_answers, batch)):
                if job.answer.done():
                    continue
                if isinstance(answer, Exception):
                    job.answer.set_exception(answer)
                else:
                    job.answer.set_result(answer)
        except Exception as error:
            for job in batch:
                if not job.answer.done():
                    job.answer.set_exception(error)

    async def _gather(self) -> None:
        """Waits until the first request has waited long enough for others, or there are enough."""
        if not self._waiting:
            return
        age = asyncio.get_running_loop().time() - self._waiting[0].began
        if (left := self._limits.batch_ms / 1000 - age) > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._enough.wait()

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
        self._count(-rows)
        return batch

    def _count(self, rows: int) -> None:
        """Of ``rows`` more that wait, or fewer."""
        self._rows += rows
        for event, is_set in ((self._arrived, self._waiting), (self._enough, self._rows >= self._limits.batch_rows)):
            if is_set:
                event.set()
            else:
                event.clear()


_PATIENCE = 2.0
"""Seconds that a call of the model has to end in when the server does."""


def _answers(jobs: Sequence[_Job]) -> list[tuple[_Job, Found | Exception]]:
    """Of those that still wait, by one call; where that fails, each half by its own, so that none fails for another."""
    wanted = [job for job in jobs if not job.answer.done()]
    if not wanted:
        return []
    questions = [job.question for job in wanted]
    try:
        return [*zip(wanted, type(questions[0]).together(questions), strict=True)]
    except Exception as error:
        if len(wanted) == 1:
            return [(wanted[0], as_exception(error))]
    middle = len(wanted) // 2
    return _answers(wanted[:middle]) + _answers(wanted[middle:])

"""Metrics of held-out items over the full catalog, ranked on the model's device."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array

from ...recsys import NO_ITEM, EvalBatch, Ragged
from ...recsys.run.background import in_thread
from ...recsys.serving.candidates import Ids, candidates_of
from ...recsys.serving.evaluation import HeldOut, start_evaluation
from ..models.parts import Graph, Parts, shape_of
from ..models.sequence_model import SequenceModel
from .ranking import Seen, rank_and_top

MOST_BATCHES = 32
"""Ranked by one call, so that the host has little to do for each."""


def evaluate(
    model: SequenceModel,
    histories: Ragged,
    targets: npt.NDArray[np.int32],
    *,
    chunk: int | None = None,
    filter_seen: bool = False,
    batch_size: int = 128,
    candidates: Ids | None = None,
    excluded: Ids | None = None,
    **options: Any,
) -> dict[str, float]:
    """Returns the metrics of `start_evaluation`, whose ``options`` it takes, dropout off.

    ``candidates`` and ``excluded`` are ids of items (n,): targets compete with only those, and with none of these.
    Items are scored by kernels on a GPU, else 8192 at once; a ``chunk`` scores so many at once in plain JAX. Compiled
    once for a number and size of batches (and for the most seen items, rounded up to powers of two).
    """
    max_length = model.config.max_length
    batches = HeldOut(histories, targets, max_length=max_length, filter_seen=filter_seen, batch_size=batch_size)
    mask = candidates_of(model.config.num_items, candidates, excluded)
    return start_evaluation_on(batches, Ranker(Parts.of(model), model.config.num_items, chunk, mask), **options)()


def start_evaluation_on(batches: HeldOut, ranker: Ranker, **options: Any) -> Callable[[], dict[str, float]]:
    """Gives the device all its work and returns what waits for the same metrics of ``batches``, as ``ranker`` ranks
    them."""
    return start_evaluation(ranker, batches, ranker.num_items, **options)


class Ranker:
    """The ranks and counts of ``start_evaluation``, in the memory of the model's device until all are found.

    ``parts`` are those of the model now; others of the same shapes may take their place. Batches are ranked several
    at once, in portions of one size. With ``keeps`` they stay on the device, for a model that is evaluated on the same
    ones again and again. ``ahead`` is `compile_ahead` of the same shapes, without candidates.
    """

    def __init__(
        self,
        parts: Parts,
        num_items: int,
        chunk: int | None = None,
        candidates: npt.NDArray[np.bool_] | None = None,
        *,
        keeps: bool = False,
        ahead: Ahead | None = None,
    ) -> None:
        self.parts, self.num_items = parts, num_items
        self.ahead, self._chunk, self._keeps = ahead, chunk, keeps
        self._candidates = None if candidates is None else jnp.asarray(candidates)
        self._kept: list[Batches] = []

    def start(self, cutoffs: tuple[int, ...], num_batches: int) -> None:
        self._cutoffs, self._size = cutoffs, _portion(num_batches)
        self._left, self._waiting = num_batches, list[EvalBatch]()
        self._ranks: list[tuple[Array, int]] = []
        self._counts = jnp.zeros((len(cutoffs), self.num_items), jnp.int32)

    def add(self, batch: EvalBatch) -> None:
        self._waiting.append(batch)
        self._left -= 1
        if len(self._waiting) == self._size or not self._left:
            fill = replace(batch, count=0)
            self._rank(self._waiting + [fill] * (self._size - len(self._waiting)))
            self._waiting = []

    def found(self) -> tuple[npt.NDArray[np.int32], dict[int, npt.NDArray[np.int32]]]:
        ranks = [np.asarray(ranks).reshape(-1)[:count] for ranks, count in self._ranks]
        return np.concatenate([np.zeros(0, np.int32), *ranks]), dict(
            zip(self._cutoffs, np.asarray(self._counts), strict=True)
        )

    def _rank(self, batches: list[EvalBatch]) -> None:
        portion = len(self._ranks)
        arrays = self._kept[portion] if portion < len(self._kept) else _stacked(batches)
        if self._keeps and portion == len(self._kept):
            arrays = jax.device_put(arrays)
            self._kept.append(arrays)
        graph, *model = self.parts
        operands = *model, self._candidates, self._counts, arrays
        program = None if self.ahead is None else self.ahead.program_of(arrays)
        if program is not None:
            self._counts, ranks = program(*operands)
        else:
            self._counts, ranks = _rank_and_count(graph, *operands, cutoffs=self._cutoffs, chunk=self._chunk)
        # only the last batch has rows that fill it
        self._ranks.append((ranks, sum(batch.count for batch in batches)))


Batches = tuple[Any, Any, Any, Seen | None]
"""Of several: the inputs (batches, B, L), the targets (batches, B), how many rows of each (batches,) are no filling,
and its seen items."""


class Ahead(NamedTuple):
    """What a thread compiles: for the number of the portion's batches and their shapes, a program."""

    found: Future[tuple[Any, Any]]

    def program_of(self, batches: Batches) -> Any:
        """The program that ranks ``batches``, once it is there; None where it is for batches of other shapes."""
        shapes, program = self.found.result()
        return program if jax.tree.map(np.shape, batches) == shapes else None


def compile_ahead(parts: Parts, num_items: int, batches: HeldOut, cutoffs: tuple[int, ...]) -> Ahead:
    """Compiles in a thread, while other work goes on, what ranks ``batches`` for these ``cutoffs`` with a model of the
    shapes of ``parts``; what goes wrong is raised where it is needed."""
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]

    def work() -> tuple[Any, Any]:
        with jax.default_matmul_precision(precision):  # a thread has JAX's own settings
            return compiled()

    def compiled() -> tuple[Any, Any]:
        portion = _stacked(list(itertools.islice(batches, _portion(len(batches)))))
        graph, *model = parts
        counts = jax.ShapeDtypeStruct((len(cutoffs), num_items), jnp.int32)
        operands = jax.tree.map(shape_of, (*model, None, counts, portion))
        program = _rank_and_count.lower(graph, *operands, cutoffs=cutoffs, chunk=None).compile()
        return jax.tree.map(np.shape, portion), program

    return Ahead(in_thread(work, "compile the ranking"))


def _portion(num_batches: int) -> int:
    portions = max(-(-num_batches // MOST_BATCHES), 1)
    return max(-(-num_batches // portions), 1)


def _stacked(batches: list[EvalBatch]) -> Batches:
    inputs, targets = (np.stack([getattr(batch, name) for batch in batches]) for name in ("inputs", "target"))
    counts = np.array([batch.count for batch in batches], np.int32)
    seen = jax.tree.map(
        lambda *arrays: np.stack(arrays), *(Seen.of(batch.seen, len(batch.inputs)) for batch in batches)
    )
    return inputs, targets, counts, seen


@partial(jax.jit, static_argnames=("graph", "cutoffs", "chunk"), donate_argnames="counts")
def _rank_and_count(
    graph: Graph,
    parameters: Any,
    constants: Any,
    candidates: Array | None,
    counts: Array,
    batches: Batches,
    *,
    cutoffs: tuple[int, ...],
    chunk: int | None,
) -> tuple[Array, Array]:
    """``counts`` (cutoffs, V) with the lists of batches, and the ranks (batches, B) of their targets.

    The model comes in `Parts`: what a call hands over is arrays alone.
    """
    rows = Parts(graph, parameters, constants).model().item_rows()

    def rank(counts: Array, batch: tuple[Array, Array, Array, Seen | None]) -> tuple[Array, Array]:
        inputs, target, num_targets, seen = batch
        hidden = Parts(graph, parameters, constants).model().next_item_hidden(inputs, rows)
        ranks, top = rank_and_top(hidden, rows, target, max(cutoffs), chunk, seen, candidates)
        is_counted = (jnp.arange(len(top)) < num_targets)[:, None] & (top != NO_ITEM)
        items = jnp.where(is_counted, top, len(rows))
        more = [count.at[items[:, :k]].add(1, mode="drop") for count, k in zip(counts, cutoffs, strict=True)]
        return jnp.stack(more), ranks

    return jax.lax.scan(rank, counts, batches)

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

from ...recsys import EvalBatch, Ragged
from ...recsys.run.background import in_thread
from ...recsys.serving.candidates import Ids, candidates_of
from ...recsys.serving.evaluation import HeldOut, start_evaluation
from ..models.parts import Parts, shape_of
from ..models.sequence_model import SequenceModel
from ..ranks import on_host
from .batch_ranking import Batches, rank_batches
from .ranking import Seen
from .spread import Spread, rank_and_count_on_mesh

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
    ones again and again. ``ahead`` is `compile_ahead` of the same shapes, without candidates. With a ``spread`` the
    devices of a mesh share the work, as `on_mesh` places the model, and all items compete.
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
        spread: Spread | None = None,
    ) -> None:
        self.parts, self.num_items, self._spread = parts, num_items, spread
        self.ahead, self._chunk, self._keeps = ahead, chunk, keeps
        self._candidates = None if candidates is None else jnp.asarray(candidates)
        self._kept: list[Batches] = []

    def start(self, cutoffs: tuple[int, ...], num_batches: int) -> None:
        self._cutoffs, self._size = cutoffs, _portion(num_batches, self._spread)
        self._left, self._waiting = num_batches, list[EvalBatch]()
        self._ranks: list[tuple[Array, int]] = []
        if self._spread is None:
            self._counts = jnp.zeros((len(cutoffs), self.num_items), jnp.int32)
        else:
            self._counts = self._spread.start_counts(len(cutoffs), self.num_items)

    def add(self, batch: EvalBatch) -> None:
        self._waiting.append(batch)
        self._left -= 1
        if len(self._waiting) == self._size or not self._left:
            self._rank(_filled(self._waiting, self._size))
            self._waiting = []

    def found(self) -> tuple[npt.NDArray[np.int32], dict[int, npt.NDArray[np.int32]]]:
        ranks = [on_host(ranks).reshape(-1)[:count] for ranks, count in self._ranks]
        counts = on_host(self._counts)
        if self._spread is not None:
            counts = self._spread.whole_counts(counts, self.num_items)
        return np.concatenate([np.zeros(0, np.int32), *ranks]), dict(zip(self._cutoffs, counts, strict=True))

    def _rank(self, batches: list[EvalBatch]) -> None:
        portion = len(self._ranks)
        arrays = self._kept[portion] if portion < len(self._kept) else self._placed(_stacked(batches))
        program = None if self.ahead is None else self.ahead.program_of(arrays)
        operands = _operands(self.parts, self._counts, arrays, self._spread, self._candidates)
        if program is not None:
            self._counts, ranks = program(*operands[1:])
        else:
            call = _call(self._cutoffs, self.num_items, self._spread, self._chunk)
            self._counts, ranks = call(*operands)
        # only the last batch has rows that fill it
        self._ranks.append((ranks, sum(batch.count for batch in batches)))

    def _placed(self, arrays: Batches) -> Batches:
        """A new portion where it is ranked."""
        if self._spread is not None:
            arrays = self._spread.placed(arrays)
        elif self._keeps:
            arrays = jax.device_put(arrays)
        if self._keeps:
            self._kept.append(arrays)
        return arrays


class Ahead(NamedTuple):
    """What a thread compiles: for the number of the portion's batches and their shapes, a program."""

    found: Future[tuple[Any, Any]]

    def program_of(self, batches: Batches) -> Any:
        """The program that ranks ``batches``, once it is there; None where it is for batches of other shapes."""
        shapes, program = self.found.result()
        return program if jax.tree.map(np.shape, batches) == shapes else None


def compile_ahead(
    parts: Parts, num_items: int, batches: HeldOut, cutoffs: tuple[int, ...], spread: Spread | None = None
) -> Ahead:
    """Compiles in a thread, while other work goes on, what ranks ``batches`` for these ``cutoffs`` with a model of the
    shapes of ``parts``, on the devices of a ``spread``; what goes wrong is raised where it is needed."""
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]

    def work() -> tuple[Any, Any]:
        with jax.default_matmul_precision(precision):  # a thread has JAX's own settings
            return compiled()

    def compiled() -> tuple[Any, Any]:
        size = _portion(len(batches), spread)
        portion = _stacked(_filled(list(itertools.islice(batches, size)), size))
        counts = jax.ShapeDtypeStruct((len(cutoffs), num_items), jnp.int32)
        if spread is not None:
            counts = spread.counts_of(len(cutoffs), num_items)
        shapes = jax.tree.map(shape_of, portion) if spread is None else spread.shapes_of(portion)
        graph, *operands = _operands(parts, counts, shapes, spread, None)
        call = _call(cutoffs, num_items, spread, None)
        ranks: Any = call.func  # a function of `jax.jit`
        program = ranks.lower(graph, *jax.tree.map(shape_of, operands), **call.keywords).compile()
        return jax.tree.map(np.shape, portion), program

    return Ahead(in_thread(work, "compile the ranking"))


def _operands(parts: Parts, counts: Any, batches: Batches, spread: Spread | None, candidates: Any) -> tuple[Any, ...]:
    """What `_call` is called with."""
    return (*parts, candidates, counts, batches) if spread is None else (*parts, counts, batches)


def _call(cutoffs: tuple[int, ...], num_items: int, spread: Spread | None, chunk: int | None) -> partial[Any]:
    """What ranks batches, with its static arguments but the graph."""
    if spread is None:
        return partial(_rank_and_count, cutoffs=cutoffs, chunk=chunk)
    return partial(rank_and_count_on_mesh, cutoffs=cutoffs, num_items=num_items, spread=spread)


def _portion(num_batches: int, spread: Spread | None) -> int:
    portions, together = max(-(-num_batches // MOST_BATCHES), 1), 1 if spread is None else spread.batches_at_once
    size = max(-(-num_batches // portions), 1)
    return -(-size // together) * together


def _filled(batches: list[EvalBatch], size: int) -> list[EvalBatch]:
    """So many batches, of which the last ones only fill up."""
    return batches + [replace(batches[-1], count=0)] * (size - len(batches))


def _stacked(batches: list[EvalBatch]) -> Batches:
    inputs, targets = (np.stack([getattr(batch, name) for batch in batches]) for name in ("inputs", "target"))
    counts = np.array([batch.count for batch in batches], np.int32)
    seen = jax.tree.map(
        lambda *arrays: np.stack(arrays), *(Seen.of(batch.seen, len(batch.inputs)) for batch in batches)
    )
    return inputs, targets, counts, seen


_rank_and_count = jax.jit(rank_batches, static_argnames=("graph", "cutoffs", "chunk"), donate_argnames="counts")

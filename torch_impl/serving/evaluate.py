"""Metrics of held-out items over the full catalog, ranked on the model's device."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...recsys import NO_ITEM, EvalBatch, Ragged
from ...recsys.run.background import in_thread
from ...recsys.serving.candidates import Ids, candidates_of
from ...recsys.serving.evaluation import HeldOut, start_evaluation
from ..devices import captured, to_device
from ..models.sequence_model import SequenceModel
from ..ranks import Ranks
from .ranking import Seen, compile_ranking, rank_and_top
from .sharded_ranking import ShardRanker


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
    Items are scored by kernels on a GPU, else 32768 at once; a ``chunk`` scores so many at once in plain torch.
    """
    max_length = model.config.max_length
    batches = HeldOut(histories, targets, max_length=max_length, filter_seen=filter_seen, batch_size=batch_size)
    mask = candidates_of(model.config.num_items, candidates, excluded)
    return start_evaluation_on(batches, Ranker(model, chunk, mask), **options)()


def start_evaluation_on(
    batches: HeldOut, ranker: Ranker | ShardRanker, **options: Any
) -> Callable[[], dict[str, float]]:
    """Gives the device all its work and returns what waits for the same metrics of ``batches``, as ``ranker`` ranks
    them."""
    model = ranker.model
    was_training = model.training
    model.eval()
    metrics = start_evaluation(ranker, batches, model.config.num_items, **options)
    model.train(was_training)
    return metrics


class Ranker:
    """The ranks and counts of ``start_evaluation``, in the memory of the model's device until all are found.

    With ``captures``, on a GPU, batches are ranked by a CUDA graph, captured at the first of their shape: for a model
    whose parameters stay in their memory and that is evaluated again and again. Several ``ranks`` take the batches in
    turn, and all find the same.
    """

    def __init__(
        self,
        model: SequenceModel,
        chunk: int | None = None,
        candidates: npt.NDArray[np.bool_] | None = None,
        *,
        captures: bool = False,
        ranks: Ranks | None = None,
    ) -> None:
        self.model, self._chunk, self._of_ranks = model, chunk, ranks or Ranks()
        self._candidates = None if candidates is None else torch.from_numpy(candidates).to(model.item_table.device)
        self._captures = captures and model.item_table.is_cuda
        self._rows = model.item_rows().detach()
        self._cutoffs: tuple[int, ...] = ()
        self._replay: Callable[[], None] | None = None

    def compile_ahead(self, batches: HeldOut, cutoffs: tuple[int, ...]) -> None:
        """Compiles in a thread, while other work goes on, the kernels that rank ``batches`` for these ``cutoffs``."""

        def work() -> None:
            for batch in itertools.islice(batches, 1):
                size, seen = len(batch.inputs), batch.seen
                most_seen = 0 if seen is None else seen.padded(size)[1]
                compile_ranking(size, self._rows, max(cutoffs), most_seen, has_candidates=self._candidates is not None)

        if self._rows.is_cuda:
            in_thread(work, "compile the ranking")

    def start(self, cutoffs: tuple[int, ...], num_batches: int) -> None:
        device = self._rows.device
        self._ranks: list[Tensor] = []
        if cutoffs != self._cutoffs:
            # one place more, for lists' places without an item
            self._counts = torch.zeros((len(cutoffs), len(self._rows) + 1), dtype=torch.int32, device=device)
            self._cutoffs, self._replay = cutoffs, None
        self._counts.zero_()
        rows = self.model.item_rows().detach()
        if rows.data_ptr() != self._rows.data_ptr():
            self._rows.copy_(rows)

    def add(self, batch: EvalBatch) -> None:
        if len(self._ranks) % self._of_ranks.number != self._of_ranks.index:  # another rank's
            self._ranks.append(torch.zeros(batch.count, dtype=torch.int64, device=self._rows.device))
            return
        arrays = batch.inputs, batch.target, np.array([batch.count])
        inputs, target, count = (to_device(torch.from_numpy(array), self._rows.device) for array in arrays)
        seen = Seen.of(batch.seen, len(inputs), self._rows.device)
        rank = self._ranked_by_graph if self._captures else self._rank
        self._ranks.append(rank(inputs, target, count, seen)[: batch.count])

    def found(self) -> tuple[npt.NDArray[np.int64], dict[int, npt.NDArray[np.int32]]]:
        ranks = torch.cat(self._ranks) if self._ranks else torch.zeros(0, dtype=torch.int64, device=self._rows.device)
        counts = self._of_ranks.sum(self._counts[:, :-1]).cpu().numpy()
        return self._of_ranks.sum(ranks).cpu().numpy(), dict(zip(self._cutoffs, counts, strict=True))

    @torch.no_grad()
    def _rank(self, inputs: Tensor, target: Tensor, count: Tensor, seen: Seen | None) -> Tensor:
        """The ranks (B,); the items of the first ``count`` (1,) lists are counted."""
        hidden, k = self.model.next_item_hidden(inputs, self._rows), max(self._cutoffs)
        ranks, top = rank_and_top(hidden, self._rows, target, k, self._chunk, seen, self._candidates)
        is_counted = (torch.arange(len(top), device=top.device) < count)[:, None] & (top != NO_ITEM)
        items = torch.where(is_counted, top, len(self._rows))
        for counts, k in zip(self._counts, self._cutoffs, strict=True):
            counted = items[:, :k].reshape(-1)
            counts.index_add_(0, counted, torch.ones_like(counted, dtype=torch.int32))
        return ranks

    def _ranked_by_graph(self, inputs: Tensor, target: Tensor, count: Tensor, seen: Seen | None) -> Tensor:
        operands = [inputs, target, count, *(seen[:-1] if seen else ())]
        shapes = [operand.shape for operand in operands], seen.most if seen else 0
        if self._replay is None or shapes != self._shapes:
            self._held, self._shapes = [operand.clone() for operand in operands], shapes
            inputs, target, count, *arrays = self._held
            rank = partial(
                self._rank, inputs, target, count, None if seen is None else Seen._make([*arrays, seen.most])
            )
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            counts = self._counts.clone()
            with torch.cuda.stream(stream):
                rank()  # kernels compile and libraries set themselves up
            torch.cuda.current_stream().wait_stream(stream)
            self._counts.copy_(counts)
            graph = torch.cuda.CUDAGraph()
            with captured(graph):  # a thread may copy a checkpoint meanwhile
                self._graph_ranks = rank()
            self._replay = graph.replay
        for held, operand in zip(self._held, operands, strict=True):
            held.copy_(operand)
        self._replay()
        return self._graph_ranks.clone()

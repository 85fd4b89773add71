"""Metrics of held-out items over a catalog of which each rank has a part: every rank ranks its own items."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...kernels.draws.shard import Shard
from ...recsys import NO_ITEM, EvalBatch
from ...recsys.run.background import in_thread
from ...recsys.serving.evaluation import HeldOut
from ..devices import to_device
from ..models.sequence_model import SequenceModel
from ..ranks import Ranks
from ..tables.embedding import embedded
from .ranking import Seen, best_of, compile_ranking, item_scores, top_items


class ShardRanker:
    """The ranks and counts of ``start_evaluation`` for a ``model`` that has a ``shard`` of the items, in the memory of
    its device until all are found. All ranks add the same batches, and find the same.

    Each embeds the inputs that are its own, takes the best of its items, and merges all ranks' lists. A target that is
    not in the longest list has rank V + 1: no metric looks further.
    """

    def __init__(self, model: SequenceModel, shard: Shard, ranks: Ranks) -> None:
        self.model, self._shard, self._all = model, shard, ranks
        self._rows = model.item_rows().detach()
        self._per_rank = -(-shard.num_items // shard.num_shards)

    def compile_ahead(self, batches: HeldOut, cutoffs: tuple[int, ...]) -> None:
        """Compiles in a thread, while other work goes on, the kernels that rank ``batches`` for these ``cutoffs``."""

        def work() -> None:
            for batch in itertools.islice(batches, 1):
                size, seen = len(batch.inputs), batch.seen
                most_seen = 0 if seen is None else seen.padded(size)[1]
                k = min(max(cutoffs), self._shard.size)
                compile_ranking(size, self._rows, k, most_seen, has_targets=False)

        if self._rows.is_cuda:
            in_thread(work, "compile the ranking")

    def start(self, cutoffs: tuple[int, ...], num_batches: int) -> None:
        rows = self.model.item_rows().detach()
        if rows.data_ptr() != self._rows.data_ptr():
            self._rows.copy_(rows)
        self._cutoffs, self._ranks = cutoffs, list[Tensor]()
        # one place more, for other ranks' items
        shape = len(cutoffs), self._per_rank + 1
        self._counts = torch.zeros(shape, dtype=torch.int32, device=self._rows.device)

    @torch.no_grad()
    def add(self, batch: EvalBatch) -> None:
        device, shard = self._rows.device, self._shard
        inputs, target = (to_device(torch.from_numpy(ids), device) for ids in (batch.inputs, batch.target))
        seen = None if batch.seen is None else batch.seen.of_shard(shard.index, shard.num_shards)
        hidden = self._hidden(inputs)
        k = min(max(self._cutoffs), shard.num_items)
        own = top_items(hidden, self._rows, min(k, shard.size), seen=Seen.of(seen, len(inputs), device))
        scores = item_scores(hidden, self._rows, own)
        items = torch.where(own == NO_ITEM, NO_ITEM, shard.items(own))
        filled = k - own.shape[1]
        items = torch.nn.functional.pad(items, (0, filled), value=NO_ITEM)
        scores = torch.nn.functional.pad(scores, (0, filled), value=-torch.inf)
        items, scores = (self._all.gather(each[None]).transpose(0, 1).flatten(1) for each in (items, scores))
        top = best_of(items, scores, k)
        self._count(top[: batch.count])
        is_target = top == target[:, None]
        rank = torch.where(is_target.any(1), is_target.int().argmax(1) + 1, shard.num_items + 1)
        self._ranks.append(rank[: batch.count])

    def found(self) -> tuple[npt.NDArray[np.int64], dict[int, npt.NDArray[np.int32]]]:
        ranks = torch.cat(self._ranks) if self._ranks else torch.zeros(0, dtype=torch.int64)
        every = self._all.gather(self._counts[None, :, :-1])  # (ranks, cutoffs, V / ranks)
        counts = every.permute(1, 2, 0).flatten(1)[:, : self._shard.num_items].cpu().numpy()
        return ranks.cpu().numpy(), dict(zip(self._cutoffs, counts, strict=True))

    def _hidden(self, inputs: Tensor) -> Tensor:
        """The states (B, D) that score the next items, from the rows that all ranks have of ``inputs`` (B, L)."""
        shard = self._shard
        is_own = (inputs >= 0) & (inputs % shard.num_shards == shard.index)
        rows = self._all.sum(embedded(self._rows, torch.where(is_own, inputs // shard.num_shards, -1)))
        places = torch.arange(inputs.numel(), device=inputs.device).view(inputs.shape)
        return self.model.next_item_hidden(torch.where(inputs >= 0, places, inputs), rows.flatten(0, 1))

    def _count(self, top: Tensor) -> None:
        shard = self._shard
        is_own = (top != NO_ITEM) & (top % shard.num_shards == shard.index)
        places = torch.where(is_own, top // shard.num_shards, self._per_rank)
        for counts, k in zip(self._counts, self._cutoffs, strict=True):
            counted = places[:, :k].reshape(-1)
            counts.index_add_(0, counted, torch.ones_like(counted, dtype=torch.int32))

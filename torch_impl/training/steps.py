"""The steps of a training: batches gathered, losses and gradients, the optimizer. On a GPU they are CUDA graphs, so
that small models do not wait for the host, which otherwise starts hundreds of kernels a step."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...kernels.draws.permutation import fold_seed, fold_seeds
from ...kernels.negatives.objectives import Objective
from ...kernels.negatives.uniform import UniformNegatives
from ...recsys import IGNORE, Ragged, TrainConfig
from ...recsys.run.steps import Steps
from ..devices import as_graph, no_cast_cache, to_device
from ..loss.catalog_shard import CatalogShard
from ..loss.working_set import WorkingSet
from ..models.sequence_model import SequenceModel
from ..ranks import Ranks
from ..tables.working_set import working_set
from .objective import Loss, follow, row_loss, shared_row_loss, training_loss
from .optimizer import TableOptimizer, clip_gradients, make_optimizer, set_rate
from .rows_ahead import RowsAhead
from .sequences import Sequences


@dataclass
class _Form:
    """What the steps of one shape read and write: their operands, the number of the batch and of the update, the
    losses, the rows read ahead, and how to run a batch and an update."""

    length: int
    held: dict[str, Tensor]
    batch: Tensor
    update: Tensor
    losses: Tensor
    ahead: RowsAhead | None = None
    run_batch: Callable[[], None] = lambda: None
    run_update: Callable[[], None] = lambda: None


Autocast = Callable[[], contextlib.AbstractContextManager[object]]

_WARM_UP = 2  # batches before a capture: libraries set themselves up and kernels compile


class TrainingSteps:
    """Trains ``model`` by `Steps`, and holds what a step moves: the model's parameters, the optimizer's state, the
    ``averages`` of weights and the ``frequencies`` of targets, where the configuration has them.

    Everything random in batch s follows from (config.seed, s). ``autocast()`` is entered around model and loss, which
    is ``loss`` (by default the objective's). With an ``item_rule`` the item table has an optimizer of its own, which
    moves what a step touches, and the loss is the objective's on these rows; those of a table in the host's memory are
    read a step ahead. With ``weighing_targets`` the loss of a batch is weighed by its number of targets over that one.
    Several ``ranks`` share each batch and take the same steps, by the mean over all of its targets; where the model has
    a shard of the items, each moves the rows of its own. ``sequences`` are
    the users' to gather batches from; None where steps bring their batches. All of this stays in its memory: a graph,
    captured at the first steps of their shape, reads and writes it there.
    """

    def __init__(
        self,
        model: SequenceModel,
        config: TrainConfig,
        objective: Objective,
        autocast: Autocast,
        *,
        frequencies: Tensor | None = None,
        sequences: Ragged | None = None,
        loss: Loss = training_loss,
        item_rule: str | None = None,
        weighing_targets: float | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.model, self.config, self.frequencies = model, config, frequencies
        self.device = model.item_table.device
        self.parameters = dict(model.named_parameters())
        self.items = None if item_rule is None else TableOptimizer(model, item_rule, config)
        self._dense = [p for name, p in self.parameters.items() if self.items is None or name != "item_table"]
        self.optimizer = make_optimizer(self._dense, config)
        self.averages = {
            name: parameter.detach().clone() for name, parameter in self.parameters.items() if config.ema_decay
        }
        self._objective, self._autocast, self._loss_of_all = objective, autocast, loss
        self._weighing_targets, self._ranks = weighing_targets, ranks or Ranks()
        self._catalog = None if model.shard is None else CatalogShard(model.config.num_items)
        self._sequences = None if sequences is None else Sequences(sequences, self.device)
        self._captures = self.device.type == "cuda" and objective.impl != "reference"  # which waits for the device
        self._forms = dict[object, _Form]()
        self._form: _Form

    def __call__(self, steps: Steps) -> Tensor:
        """Trains by ``steps`` and returns the losses (batches,) float32, on the device; waits for nothing on a GPU."""
        seeds = fold_seeds(self.config.seed, steps.first + np.arange(steps.counts.size * self.config.accumulate))
        shared, ranks = seeds, self._ranks
        if ranks.number > 1:  # each has draws of its own
            steps = steps.of_rank(ranks.index, ranks.number)
            seeds = np.array([fold_seed(int(seed), ranks.index) for seed in seeds], np.uint64)
        # of shards all draw by one seed, which each folds by itself
        operands = self._operands(steps, seeds if self._catalog is None else shared)
        form = self._form_of(steps, operands)
        for name, operand in operands.items():
            form.held[name].copy_(to_device(operand, self.device))
        self._start()
        of_dropout = iter(seeds.tolist())
        for count in steps.counts.tolist():
            for seed in itertools.islice(of_dropout, count):
                self._seed_dropout(seed)
                form.run_batch()
            if count:
                form.run_update()
        if self._form.ahead is not None:
            self._form.ahead.end()
        losses = form.losses[: steps.num_batches].clone()
        ranks.add_up([losses])
        return losses

    def _form_of(self, steps: Steps, operands: dict[str, Tensor]) -> _Form:
        """The form of ``steps``, which is from now on the one in use; made where there is none yet."""
        key = (steps.length, *((name, operand.shape, operand.dtype) for name, operand in operands.items()))
        if key not in self._forms:
            held = {name: operand.to(self.device, copy=True) for name, operand in operands.items()}
            batch, update = (torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(2))
            losses = torch.zeros(steps.counts.size * self.config.accumulate, device=self.device)
            self._form = _Form(steps.length, held, batch, update, losses)
            if self.items is not None and self.items.table.host:
                self._form.ahead = RowsAhead(self.items.table, self._set_at(batch))
            self._form.run_batch, self._form.run_update = self._ways()
            self._forms[key] = self._form
        self._form = self._forms[key]
        return self._form

    def _start(self) -> None:
        self._form.batch.zero_()
        self._form.update.zero_()
        if self._form.ahead is not None:
            self._form.ahead.start(self._set_at(self._form.batch))

    def replay(self) -> None:
        """Runs one more batch and update of the last steps, with their draws and rates, for a measurement."""
        self._start()
        self._form.run_batch()
        self._form.run_update()
        if self._form.ahead is not None:
            self._form.ahead.end()

    def release(self) -> None:
        """Frees the graphs: a process group does not end before those that hold its collectives."""
        self._forms.clear()
        vars(self).pop("_form", None)  # there is none where nothing was left to train

    def _operands(self, steps: Steps, seeds: npt.NDArray[np.uint64]) -> dict[str, Tensor]:
        arrays = {
            "seeds": seeds.view(np.int64),
            "rates": steps.rates,
            "shares": (1 / np.maximum(steps.counts, 1)).astype(np.float32),
            **{
                name: array.reshape(-1, *array.shape[2:])
                for name in ("rows", "masked", "inputs", "targets")
                if (array := getattr(steps, name)) is not None
            },
        }
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _seed_dropout(self, seed: int) -> None:
        on_gpu = self.device.type == "cuda"
        generator = torch.cuda.default_generators[self.device.index or 0] if on_gpu else torch.default_generator
        generator.manual_seed(seed)

    def _at(self, name: str, index: Tensor) -> Tensor:
        """The operand of the batch ``index`` (1,)."""
        return self._form.held[name].index_select(0, index)[0]

    def _batch(self) -> None:
        """One batch: its gradients are added up, its loss is kept."""
        loss = self._loss() if self._form.ahead is None else self._loss_ahead(self._form.ahead)
        loss.backward()
        self._form.losses.index_copy_(0, self._form.batch, loss.detach().view(1))
        self._form.batch += 1

    def _loss(self) -> Tensor:
        inputs, targets = self._gathered(self._form.batch)
        every = targets if self.frequencies is None else self._ranks.gather(targets)
        frequencies = follow(self.frequencies, every, self._objective)
        if frequencies is not None and self.frequencies is not None:
            self.frequencies.copy_(frequencies)
        with self._autocast():
            return self._weight(targets) * self.loss_of(
                inputs, targets, self._at("seeds", self._form.batch), frequencies
            )

    def _weight(self, targets: Tensor) -> Tensor | float:
        """What the mean loss of a batch, or of a rank's part of it, counts: the sum over ranks is the batch's."""
        if self._weighing_targets is None and self._ranks.number == 1:
            return 1.0
        counted = (targets != IGNORE).sum().float()
        every = self._weighing_targets or self._ranks.sum(counted).clamp(min=1)
        return counted / every

    def _loss_ahead(self, ahead: RowsAhead) -> Tensor:
        """The same of rows that were read before it, while those of the batch after it are read."""
        rows, last = ahead.rows(), len(self._form.losses) - 1
        ahead.fetch(self._set_at((self._form.batch + 1).clamp(max=last)))
        with self._autocast():
            return row_loss(self.model, rows, ahead.given, objective=self._objective)

    def loss_of(self, inputs: Tensor, targets: Tensor, seed: int | Tensor, frequencies: Tensor | None) -> Tensor:
        """The loss of a batch, of the rows that it touches where these alone are moved."""
        if self.items is None:
            operands = self.model, inputs, targets, seed
            return self._loss_of_all(*operands, objective=self._objective, frequencies=frequencies)
        given = self._set_of(inputs, targets, seed)
        rows = self.items.table(given)
        if self._catalog is None:
            return row_loss(self.model, rows, given, objective=self._objective)
        return shared_row_loss(self.model, rows, given, inputs, objective=self._objective, catalog=self._catalog)

    def _set_of(self, inputs: Tensor, targets: Tensor, seed: int | Tensor) -> WorkingSet:
        sampler = self._objective.sampler
        assert isinstance(sampler, UniformNegatives)
        options = {"inputs": inputs, "catalog": self._catalog, "impl": self._objective.impl}
        return working_set(sampler, targets, num_items=self.model.config.num_items, seed=seed, **options)

    def _set_at(self, index: Tensor) -> WorkingSet:
        return self._set_of(*self._gathered(index), self._at("seeds", index))

    def _gathered(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the batch ``index`` (1,)."""
        if "rows" not in self._form.held:
            return self._at("inputs", index), self._at("targets", index)
        assert self._sequences is not None
        if "masked" in self._form.held:
            return self._sequences.masked_items(self._at("rows", index), self._at("masked", index))
        return self._sequences.next_items(self._at("rows", index), self._form.length)

    @torch.no_grad()
    def _update(self) -> None:
        """The optimizer's step on the mean gradient of its batches, which is nothing afterwards."""
        accumulates = self.config.accumulate > 1
        self._ranks.add_up(parameter.grad for parameter in self.parameters.values() if parameter.grad is not None)
        if accumulates:
            share = self._form.held["shares"].index_select(0, self._form.update)[0]
            for parameter in self.parameters.values():
                assert parameter.grad is not None
                parameter.grad *= share
        if self.config.clip_norm:
            rows = [] if self.items is None else self.items.gradients()
            clip_gradients(self._dense, rows, self.config.clip_norm, None if self._catalog is None else self._ranks)
        rate = self._form.held["rates"].index_select(0, self._form.update)
        set_rate(self.optimizer, rate)
        self.optimizer.step()
        if self.items is not None:
            self.items.step(rate)
        if self._form.ahead is not None:
            self._form.ahead.turn()
        for name, average in self.averages.items():
            average.lerp_(self.parameters[name], 1 - self.config.ema_decay)
        # in its memory, where the graph of a batch adds to it
        self.optimizer.zero_grad(set_to_none=not accumulates)
        self._form.update += 1

    def _ways(self) -> tuple[Callable[[], None], Callable[[], None]]:
        """How to run a batch and an update: as they are, or as graphs; without accumulation both are one graph."""
        if self.config.accumulate > 1:
            for parameter in self.parameters.values():
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        if not self._captures:
            return self._batch, self._update
        with torch.cuda.device(self.device), no_cast_cache():
            self._warm_up()
            if self.config.accumulate == 1:
                return as_graph(self._batch, self._update), lambda: None
            return as_graph(self._batch), as_graph(self._update)

    def _warm_up(self) -> None:
        frequencies = None if self.frequencies is None else self.frequencies.clone()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                self._form.batch.zero_()
                self._batch()
                if self.items is not None:
                    self.items.warm_up()
                if self._form.ahead is not None:
                    self._form.ahead.turn()
            self.optimizer.zero_grad(set_to_none=self.config.accumulate == 1)
        torch.cuda.current_stream().wait_stream(stream)
        if frequencies is not None and self.frequencies is not None:
            self.frequencies.copy_(frequencies)

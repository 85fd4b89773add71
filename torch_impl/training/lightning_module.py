"""The training loop of a sequence model as a LightningModule, and its batches as a LightningDataModule."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from ...recsys import MetricsTally, Split, TrainConfig, epoch_batches, eval_batches, evaluation_options, num_batches
from ...recsys.run.losses import EpochLosses
from ..loss.seeds import seed_words
from ..models.sequence_model import SequenceModel
from ..serving.evaluate import batch_ranking
from ..serving.ranking import Seen
from .captured_loss import CapturedLoss, can_capture
from .objective import follow, make_optimizer, objective_of, start_frequencies, step_seed, training_loss


class SequenceModule(LightningModule):
    """Trains ``model`` on (inputs, targets) batches and validates on (inputs, target, count, seen) batches.

    Everything random in step s comes from (config.seed, s), so that a resumed run repeats an uninterrupted one; the
    frequencies of targets, where the loss follows them, are a buffer and so part of a checkpoint. On a GPU the loss and
    its gradients are CUDA graphs, captured at the first step. ``epoch_losses`` and ``epoch_metrics`` hold the last
    epoch's losses and metrics (empty without validation).
    """

    frequencies: Tensor | None

    def __init__(self, model: SequenceModel, config: TrainConfig, split: Split) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.objective = objective_of(config, split)
        self.register_buffer("frequencies", start_frequencies(self.objective, split))
        self.epoch_metrics: dict[str, float] = {}
        self.epoch_losses = _losses_of(0, 0)
        self._captured: CapturedLoss | None = None
        self._evaluation = evaluation_options(config, split)
        self._tally = self._new_tally()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer, schedule = make_optimizer(self.model, self.config)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        self._captured = None  # an earlier fit's parameters have been elsewhere since

    def on_train_epoch_start(self) -> None:
        self.epoch_losses = _losses_of(self.trainer.current_epoch, self.trainer.global_step)
        self.epoch_metrics = {}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        step = self.trainer.global_step
        inputs, targets = batch
        self.frequencies = follow(self.frequencies, targets, self.objective)
        seed = step_seed(self.config, step)
        operands = inputs, targets, seed_words(seed, inputs.device).view(torch.int64), self.frequencies
        if self._captured is None and can_capture(self.objective, inputs.device):
            self._captured = CapturedLoss(self.model, self._loss, *operands)
        torch.manual_seed(seed)  # dropout's
        loss = self._captured(*operands) if self._captured else self._loss(self.model, *operands)
        result = loss.detach().clone()  # the next replay overwrites the loss
        self.epoch_losses.add(result)
        self.log("loss", result, prog_bar=True, batch_size=self.config.batch_size)
        return loss

    def _loss(
        self, model: SequenceModel, inputs: Tensor, targets: Tensor, seed: Tensor, frequencies: Tensor | None
    ) -> Tensor:
        return training_loss(model, inputs, targets, seed, objective=self.objective, frequencies=frequencies)

    def on_validation_epoch_start(self) -> None:
        # Detached, or the table itself would become a second parameter of this module.
        self._item_rows = self.model.item_rows().detach()

    def validation_step(self, batch: tuple[Tensor, Tensor, int, Seen | None], batch_idx: int) -> None:
        inputs, target, count, seen = batch
        ranks, top = batch_ranking(self.model, self._item_rows, inputs, target, self._tally.width, seen=seen)
        self._tally.add(ranks[:count].cpu().numpy(), top[:count].cpu().numpy())

    def on_validation_epoch_end(self) -> None:
        del self._item_rows
        self.epoch_metrics = self._tally.metrics()
        self._tally = self._new_tally()
        self.log_dict(self.epoch_metrics, prog_bar=True)

    def _new_tally(self) -> MetricsTally:
        options = self._evaluation
        return MetricsTally(self.model.config.num_items, cutoffs=options["cutoffs"], information=options["information"])


def _losses_of(epoch: int, first_step: int) -> EpochLosses[Tensor]:
    return EpochLosses(epoch, first_step, lambda losses: torch.stack(losses).cpu().numpy())


class SequenceData(LightningDataModule):
    """The batches of ``split``: the same ones, in the same order, as in the other framework."""

    def __init__(self, split: Split, config: TrainConfig) -> None:
        super().__init__()
        self.split = split
        self.config = config

    def train_dataloader(self) -> EpochBatches:
        return EpochBatches(self.split, self.config, lambda: self.trainer.current_epoch if self.trainer else 0)

    def val_dataloader(self) -> ValidationBatches:
        return ValidationBatches(self.split, self.config)


class EpochBatches:
    """Iterable of an epoch's (inputs, targets), for the epoch that ``epoch()`` tells when iteration starts."""

    def __init__(self, split: Split, config: TrainConfig, epoch: Callable[[], int]) -> None:
        self.split = split
        self.config = config
        self.epoch = epoch

    def __len__(self) -> int:
        return num_batches(self.split.train, batch_size=self.config.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in epoch_batches(self.config, self.split, self.epoch()):
            yield torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)


class ValidationBatches:
    """Iterable of (inputs, target, count, seen) over the validation part of ``split``."""

    def __init__(self, split: Split, config: TrainConfig) -> None:
        self.split = split
        self.config = config

    def __len__(self) -> int:
        return -(-len(self.split.valid_history) // self.config.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, int, Seen | None]]:
        for batch in eval_batches(
            self.split.valid_history,
            self.split.valid_target,
            batch_size=self.config.batch_size,
            max_length=self.config.max_length,
            filter_seen=self.config.filter_seen,
        ):
            seen = Seen.of(batch.seen, len(batch.inputs), torch.device("cpu"))
            yield torch.from_numpy(batch.inputs), torch.from_numpy(batch.target), batch.count, seen

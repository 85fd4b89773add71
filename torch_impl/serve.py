"""A trained model for the serving commands, without Lightning."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..recsys import Ragged, Split, TrainConfig, evaluation_options
from ..recsys.run.experiment import RANKED_AT_ONCE
from ..recsys.run.tensor_file import Stored, row_ranges
from ..recsys.run.weights_file import read_config
from ..recsys.serving.candidates import Ids
from ..recsys.serving.encoder_program import EncoderProgram
from ..recsys.serving.evaluation import TakeRanks
from .devices import device_of, enough_memory, memory
from .models import build_model
from .models.sequence_model import SequenceModel
from .models.weights import load_weights
from .serving.encoder_program import encoder_program
from .serving.evaluate import evaluate
from .serving.hidden_states import hidden_states
from .serving.recommend import recommend_with_scores
from .stored import stored

_MOST_OF_DEVICE = 0.8
"""The share of a GPU's memory that an item table takes at most; a larger one is read from the host's."""


@dataclass(frozen=True)
class ServedModel:
    """The `ServedModel` and `ExportedModel` of `recsys.serving` in PyTorch; ``precision`` is the encoder's, scores are
    float32 in any."""

    model: SequenceModel
    precision: str = "fp32"

    @enough_memory()
    def evaluate(
        self,
        histories: Ragged,
        targets: npt.NDArray[np.int32],
        split: Split,
        *,
        config: TrainConfig,
        take_ranks: TakeRanks | None = None,
    ) -> dict[str, float]:
        with self._autocast():
            options = evaluation_options(config, split)
            return evaluate(self.model, histories, targets, **options, take_ranks=take_ranks)

    @enough_memory()
    def recommend(
        self, histories: Ragged, k: int, *, filter_seen: bool, candidates: Ids | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        with self._autocast():
            options = {"filter_seen": filter_seen, "candidates": candidates, "batch_size": RANKED_AT_ONCE}
            return recommend_with_scores(self.model, histories, k, **options)

    def item_vectors(self) -> Stored:
        model, rows = self.model, stored(self.model.item_table)
        if model.item_features is None:
            return rows

        @torch.no_grad()
        def pieces() -> Iterator[np.ndarray]:
            for first, end in row_ranges(rows.shape, rows.numpy_dtype.itemsize):
                with enough_memory():
                    ids = torch.arange(first, end, device=model.item_table.device)
                    vectors = model.with_features(model.item_table[first:end], ids).cpu().numpy()
                yield vectors

        return Stored("float32", rows.shape, pieces)

    @enough_memory()
    def hidden_states(self, histories: Ragged) -> npt.NDArray[np.float32]:
        with self._autocast():
            return hidden_states(self.model, histories)

    @enough_memory()
    def encoder_program(self) -> EncoderProgram:
        return encoder_program(self.model)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.model.item_table.device.type, torch.bfloat16, enabled=self.precision == "bf16")


@enough_memory()
def load_served(weights: Path, device: str, precision: str = "fp32") -> ServedModel:
    """The model of a weights file of either framework, in evaluation mode; raises ``ConfigError``."""
    place = device_of(device)
    config = read_config(weights)
    size = config.num_items * config.dim * (2 if config.table_dtype == "bf16" else 4)
    with place:  # a large table is nowhere else
        is_large = size > memory(place) * _MOST_OF_DEVICE
        model = build_model(config, host_table=is_large and not config.num_features)
    load_weights(model, weights)
    return ServedModel(model.eval(), precision)

"""A trained model for the serving commands, without Lightning."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ..recsys import Ragged, Split, TrainConfig, evaluation_options
from ..recsys.run.weights_file import read_config
from .devices import device_of, enough_memory
from .models import build_model
from .models.sequence_model import SequenceModel
from .models.weights import load_weights
from .serving.evaluate import evaluate
from .serving.recommend import recommend


@dataclass(frozen=True)
class ServedModel:
    """The `recsys.serving.ServedModel` of PyTorch; ``precision`` is the encoder's, scores are float32 in any."""

    model: SequenceModel
    precision: str = "fp32"

    @enough_memory()
    def evaluate(
        self, histories: Ragged, targets: npt.NDArray[np.int32], split: Split, *, config: TrainConfig
    ) -> dict[str, float]:
        with self._autocast():
            return evaluate(self.model, histories, targets, **evaluation_options(config, split))

    @enough_memory()
    def recommend(self, histories: Ragged, k: int, *, filter_seen: bool) -> npt.NDArray[np.int64]:
        with self._autocast():
            return recommend(self.model, histories, k, filter_seen=filter_seen)

    def item_vectors(self) -> npt.NDArray[np.float32]:
        return self.model.item_rows().detach().cpu().numpy()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.model.item_table.device.type, torch.bfloat16, enabled=self.precision == "bf16")


@enough_memory()
def load_served(weights: Path, device: str, precision: str = "fp32") -> ServedModel:
    """The model of a weights file of either framework, in evaluation mode; raises ``ConfigError``."""
    place = device_of(device)
    model = build_model(read_config(weights))
    load_weights(model, weights)
    return ServedModel(model.to(place).eval(), precision)

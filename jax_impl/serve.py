"""A trained model for the serving commands, without Orbax."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx

from ..recsys import Ragged, Split, TrainConfig, evaluation_options
from ..recsys.run.experiment import RANKED_AT_ONCE
from ..recsys.run.tensor_file import Stored, row_ranges
from ..recsys.run.weights_file import read_config
from ..recsys.serving.candidates import Ids
from ..recsys.serving.encoder_program import EncoderProgram
from ..recsys.serving.evaluation import TakeRanks
from .devices import enough_memory, on_device
from .models import DTYPES, build_model
from .models.sequence_model import SequenceModel
from .models.weights import load_weights
from .serving.encoder_program import encoder_program
from .serving.evaluate import evaluate
from .serving.hidden_states import hidden_states
from .serving.recommend import recommend_with_scores
from .stored import stored


@dataclass(frozen=True)
class ServedModel:
    """The `ServedModel` and `ExportedModel` of `recsys.serving` in JAX; the model's dtype is the encoder's, scores are
    float32 in any."""

    model: SequenceModel
    device: str

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
        with on_device(self.device):
            options = evaluation_options(config, split)
            return evaluate(self.model, histories, targets, **options, take_ranks=take_ranks)

    @enough_memory()
    def recommend(
        self, histories: Ragged, k: int, *, filter_seen: bool, candidates: Ids | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        with on_device(self.device):
            options = {"filter_seen": filter_seen, "candidates": candidates, "batch_size": RANKED_AT_ONCE}
            return recommend_with_scores(self.model, histories, k, **options)

    def item_vectors(self) -> Stored:
        model, rows = self.model, stored(self.model.item_table[...])
        if model.item_features is None:
            return rows

        def pieces() -> Iterator[np.ndarray]:
            for first, end in row_ranges(rows.shape, rows.numpy_dtype.itemsize):
                with enough_memory(), on_device(self.device):
                    vectors = np.asarray(model.with_features(model.item_table[first:end], jnp.arange(first, end)))
                yield vectors

        return Stored("float32", rows.shape, pieces)

    @enough_memory()
    def hidden_states(self, histories: Ragged) -> npt.NDArray[np.float32]:
        with on_device(self.device):
            return hidden_states(self.model, histories)

    @enough_memory()
    def encoder_program(self) -> EncoderProgram:
        with on_device(self.device):
            return encoder_program(self.model)


@enough_memory()
def load_served(weights: Path, device: str, precision: str = "fp32") -> ServedModel:
    """The model of a weights file of either framework; raises ``ConfigError``."""
    with on_device(device):
        config = read_config(weights)
        # Shapes alone: drawing and compiling initial weights would take seconds of a cold start.
        model = nnx.eval_shape(lambda: build_model(config, rngs=nnx.Rngs(0), dtype=DTYPES[precision]))
        load_weights(model, weights)
    return ServedModel(model, device)

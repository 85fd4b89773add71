"""The sequence models by name."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from ...recsys.run.model_config import ModelConfig
from .bert4rec import BERT4Rec
from .ligr import LiGR
from .sasrec import SASRec
from .sequence_model import SequenceModel

MODELS: dict[str, type[SequenceModel]] = {model.name: model for model in (SASRec, BERT4Rec, LiGR)}

DTYPES: dict[str, DTypeLike] = {"fp32": jnp.float32, "bf16": jnp.bfloat16}
"""The dtype of a model's matrix products by the name of a run's precision."""


def build_model(config: ModelConfig, *, rngs: nnx.Rngs, dtype: DTypeLike = jnp.float32) -> SequenceModel:
    """Returns the model that ``config.model`` names, initialised from ``rngs``."""
    return MODELS[config.model](config, rngs=rngs, dtype=dtype)

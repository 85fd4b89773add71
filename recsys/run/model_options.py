"""The options of a run that say which model it trains."""

from __future__ import annotations

from dataclasses import dataclass

from .data_options import DataOptions, option


@dataclass(frozen=True)
class ModelOptions(DataOptions):
    """The options of the groups Data and Model, which `TrainConfig` checks."""

    model: str = option(
        "sasrec",
        "Model",
        "sasrec: a transformer that predicts each item from those before it. ligr: the same with gated blocks. "
        "bert4rec: predicts masked items from both sides.",
    )
    max_length: int = option(
        200,
        "Model",
        "Items of a user's history the model sees, the latest ones; bert4rec predicts from one fewer. 0: as many as "
        "nine in ten users have, at most 200.",
    )
    dim: int = option(64, "Model", "Width of the item embeddings and of the hidden states.")
    num_blocks: int = option(1, "Model", "Transformer blocks.")
    num_heads: int = option(1, "Model", "Attention heads; must divide dim.")
    dropout: float = option(0.4, "Model", "Dropout probability, at least 0 and below 1.")
    mask_probability: float = option(
        0.2, "Model", "bert4rec: probability that an item of a training row is masked, above 0 and below 1."
    )

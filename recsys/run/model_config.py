"""The shape of a sequence model: what a weights file must agree with."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ConfigError
from .config import TrainConfig
from .item_optimizer import TABLE_DTYPES
from .model_choices import MODELS, check_length


@dataclass(frozen=True)
class ModelConfig:
    """Kind, sizes and dropout of a sequence model; ``num_features`` is the number of its items' side features, 0 for
    none; ``table_dtype`` is the item table's, fp32 or bf16.

    Raises ``ConfigError`` for an unknown ``model`` or ``table_dtype``, a size below 1, a negative ``num_features``,
    ``dim`` not a multiple of ``num_heads``, dropout outside [0, 1), or BERT4Rec of one place.
    """

    num_items: int
    model: str = "sasrec"
    max_length: int = 100
    dim: int = 64
    num_blocks: int = 2
    num_heads: int = 2
    dropout: float = 0.2
    num_features: int = 0
    table_dtype: str = "fp32"

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ConfigError(f"model: expected one of {', '.join(MODELS)}, got {self.model}")
        if self.table_dtype not in TABLE_DTYPES:
            raise ConfigError(f"table_dtype: expected one of {', '.join(TABLE_DTYPES)}, got {self.table_dtype}")
        for name in ("num_items", "max_length", "dim", "num_blocks", "num_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: expected a positive integer, got {getattr(self, name)}")
        if self.num_features < 0:
            raise ConfigError(f"num_features: expected an integer from 0 up, got {self.num_features}")
        check_length(self.model, self.max_length)
        if self.dim % self.num_heads:
            raise ConfigError(f"dim: expected a multiple of num_heads={self.num_heads}, got {self.dim}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout: expected a number in [0, 1), got {self.dropout}")

    def require(self, model: str) -> None:
        """Raises ``ConfigError`` unless this is the configuration of a ``model``."""
        if self.model != model:
            raise ConfigError(f"model: expected {model}, got {self.model}")

    @classmethod
    def from_train(cls, config: TrainConfig, num_items: int, num_features: int = 0) -> ModelConfig:
        """Takes the model's part of a training configuration; the data tell the numbers of items and of their
        features."""
        return cls(
            num_items=num_items,
            model=config.model,
            max_length=config.max_length,
            dim=config.dim,
            num_blocks=config.num_blocks,
            num_heads=config.num_heads,
            dropout=config.dropout,
            num_features=num_features,
            table_dtype=config.table_dtype,
        )

"""What the sequence models have in common, as a PyTorch module."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..recsys.model_config import ModelConfig
from .transformer import LAYER_NORM_EPS, Block, causal_mask

INIT_STD = 0.02


class SequenceModel(nn.Module):
    """Transformer over item ids whose item table serves both as input and as output embedding.

    ``hidden = LayerNorm(blocks(dropout(embed(inputs) + positions)))``, ``embed(inputs) = sqrt(D)
    item_table[inputs]``; the score of item j at position l is ``hidden[b, l] . item_table[j]``. It is causal
    unless a subclass overrides ``attention_mask`` and ``next_item_hidden``.

    Inputs (B, L) integers, L <= max_length, items 0..V-1 and -1 for padding on the left. Returns (B, L, D)
    in the dtype of the computation (float32, or the autocast dtype up to the last norm). Positions are
    counted from the sequence's end, so left padding never changes a result. Outputs at padded places are
    finite and mean nothing. Raises ``ValueError`` for inputs of another rank or longer than max_length, and
    ``ConfigError`` for the configuration of another model.
    """

    name: ClassVar[str]
    """The model's name in a configuration."""

    block_type: ClassVar[Callable[..., nn.Module]] = Block
    """Made from (dim, num_heads, dropout), called with hidden (B, L, D) and mask (B, L, L)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        config.require(self.name)
        self.config = config
        self.item_table = nn.Parameter(torch.empty(config.num_items, config.dim))
        self.position_table = nn.Parameter(torch.empty(config.max_length, config.dim))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            self.block_type(config.dim, config.num_heads, config.dropout) for _ in range(config.num_blocks)
        )
        self.final_norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Matrices and tables from N(0, 0.02^2), biases 0, norms 1 (LayerNorm's own default)."""
        nn.init.normal_(self.item_table, std=INIT_STD)
        nn.init.normal_(self.position_table, std=INIT_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD)
                nn.init.zeros_(module.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        self.check_inputs(inputs)
        positions = self.position_table[self.config.max_length - inputs.shape[1] :]
        hidden = self.dropout(self.embed(inputs) + positions)
        mask = self.attention_mask(inputs)
        for block in self.blocks:
            hidden = block(hidden, mask)
        return self.final_norm(hidden)

    def next_item_hidden(self, inputs: Tensor) -> Tensor:
        """Returns the state (B, D) that scores the next item after the histories ``inputs`` (B, L), padded on
        the left: the last place's."""
        return self(inputs)[:, -1]

    def embed(self, inputs: Tensor) -> Tensor:
        """Returns the item rows (B, L, D) of ``inputs`` (B, L), zeros for negative ids."""
        # sqrt(D), as in SASRec's paper: without it the small initial item rows drown among positions and blocks.
        scale = (inputs >= 0)[..., None] * math.sqrt(self.config.dim)
        return F.embedding(inputs.clamp_min(0), self.item_table) * scale

    def attention_mask(self, inputs: Tensor) -> Tensor:
        """Returns the (B, L, L) boolean mask of what each place of ``inputs`` (B, L) sees."""
        return causal_mask(inputs >= 0)

    def check_inputs(self, inputs: Tensor) -> None:
        """Raises ``ValueError`` unless ``inputs`` are (B, L) with L <= max_length."""
        if inputs.ndim != 2 or inputs.shape[1] > self.config.max_length:
            raise ValueError(f"inputs: expected shape (B, L) with L <= {self.config.max_length}, got {tuple(inputs.shape)}")

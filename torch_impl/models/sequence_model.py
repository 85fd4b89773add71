"""What the sequence models have in common, as a PyTorch module."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from ...kernels.draws.shard import Shard
from ...recsys.run.model_config import ModelConfig
from ...recsys.run.side_information import SideInformation
from ..tables.embedding import embedded
from ..tables.host_memory import device_tensor, host_tensor
from .transformer import INIT_STD, LAYER_NORM_EPS, Block, causal_mask

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Of the item table, by their names in a configuration."""


class SequenceModel(nn.Module):
    """Transformer over item ids whose item rows serve both as input and as output embedding.

    ``hidden = LayerNorm(blocks(dropout(embed(inputs, rows) + positions)))``, ``embed(inputs, rows) = sqrt(D)
    rows[inputs]``; the score of item j at position l is ``hidden[b, l] . rows[j]``. It is causal unless a subclass
    overrides ``attention_mask`` and ``next_item_hidden``.

    ``rows = item_rows()`` (V, D) are ``item_table``, plus ``item_features @ feature_projection`` if
    ``config.num_features`` P > 0: the features (V, P) are constants, zeros until ``start_items``, the projection (P, D)
    is learned. A caller who needs the rows too computes them once and passes them on, or each input's own (B, L, D),
    zeros of padding. With ``host_table`` a GPU's table is in the host's memory; with a ``shard`` table and features
    have its items alone.

    Inputs (B, L) integers, L <= max_length, items 0..V-1 and -1 for padding on the left. Returns (B, L, D) in the dtype
    of the computation (float32, or the autocast dtype up to the last norm). Positions are counted from the sequence's
    end, so left padding never changes a result. ``last_only`` gives the last place alone, (B, 1, D), and saves the last
    block the others. Outputs at padded places are finite and mean nothing. Raises
    ``ValueError`` for inputs of another rank or longer than max_length, and ``ConfigError`` for the configuration of
    another model.
    """

    name: ClassVar[str]
    """The model's name in a configuration."""

    block_type: ClassVar[Callable[..., nn.Module]] = Block
    """Made from (dim, num_heads, dropout), called with hidden (B, L, D) and mask (B, Q, L) for (B, Q, D)."""

    item_features: Tensor | None
    feature_projection: nn.Parameter | None

    def __init__(self, config: ModelConfig, *, host_table: bool = False, shard: Shard | None = None) -> None:
        super().__init__()
        config.require(self.name)
        self.config, self.shard = config, shard
        num_rows = config.num_items if shard is None else shard.size
        empty = host_tensor if host_table else device_tensor
        place = torch.empty(0).device
        self.item_table = nn.Parameter(empty((num_rows, config.dim), DTYPES[config.table_dtype], place))
        self.position_table = nn.Parameter(torch.empty(config.max_length, config.dim))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            self.block_type(config.dim, config.num_heads, config.dropout) for _ in range(config.num_blocks)
        )
        self.final_norm = nn.LayerNorm(config.dim, eps=LAYER_NORM_EPS)
        p = config.num_features
        self.register_buffer("item_features", torch.zeros(num_rows, p) if p else None)
        self.register_parameter("feature_projection", nn.Parameter(torch.empty(p, config.dim)) if p else None)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Matrices and tables from N(0, 0.02^2), biases 0, norms 1 (LayerNorm's own default)."""
        nn.init.normal_(self.item_table, std=INIT_STD)
        nn.init.normal_(self.position_table, std=INIT_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=INIT_STD)
                nn.init.zeros_(module.bias)
        if self.feature_projection is not None:
            nn.init.normal_(self.feature_projection, std=INIT_STD)

    @torch.no_grad()
    def start_items(self, side: SideInformation) -> None:
        """Takes the features of ``side`` and, if it has initial rows, those in place of the item table's, at the
        standard deviation of its own."""
        own = slice(None) if self.shard is None else slice(self.shard.index, None, self.shard.num_shards)
        if self.item_features is not None:
            self.item_features.copy_(torch.from_numpy(side.features[own]))
        if side.initial is not None:
            self.item_table.copy_(torch.from_numpy(side.initial[own]) * INIT_STD)

    def item_rows(self) -> Tensor:
        """Returns the embeddings (V, D) of all items: without features the table itself, float32 or bfloat16, else
        float32."""
        if self.item_features is None:
            return self.item_table
        assert self.feature_projection is not None
        # float32 under autocast too: the rows are part of the residual stream, and equal in all callers.
        with torch.autocast(self.item_table.device.type, enabled=False):
            return self.item_table + self.item_features @ self.feature_projection

    def with_features(self, rows: Tensor, ids: Tensor) -> Tensor:
        """Returns ``rows`` (T, D) of the item table with the features of the items ``ids`` (T,): their item rows."""
        if self.item_features is None:
            return rows
        assert self.feature_projection is not None
        with torch.autocast(rows.device.type, enabled=False):
            return rows + self.item_features.index_select(0, ids) @ self.feature_projection

    def forward(self, inputs: Tensor, rows: Tensor | None = None, *, last_only: bool = False) -> Tensor:
        self.check_inputs(inputs)
        rows = self.item_rows() if rows is None else rows
        positions = self.position_table[self.config.max_length - inputs.shape[1] :]
        hidden = self.dropout(self.embed(inputs, rows) + positions)
        mask = self.attention_mask(inputs)
        for number, block in enumerate(self.blocks, start=1):
            is_last = number == len(self.blocks)
            hidden = block(hidden, mask[:, -1:] if last_only and is_last else mask)
        return self.final_norm(hidden)

    def next_item_hidden(self, inputs: Tensor, rows: Tensor | None = None) -> Tensor:
        """Returns the state (B, D) that scores the next item after the histories ``inputs`` (B, L), padded on the left:
        the last place's."""
        return self(inputs, rows, last_only=True)[:, -1]

    def embed(self, inputs: Tensor, rows: Tensor) -> Tensor:
        """Returns sqrt(D) times those of ``rows`` (V, D) that ``inputs`` (B, L) name, (B, L, D), zeros for negative
        ids; or times ``rows`` (B, L, D) as they are."""
        own = rows if rows.ndim == 3 else embedded(rows, inputs)
        # sqrt(D), as in SASRec's paper: without it the small initial item rows drown among positions and blocks.
        return own.float() * math.sqrt(self.config.dim)

    def attention_mask(self, inputs: Tensor) -> Tensor:
        """Returns the (B, L, L) boolean mask of what each place of ``inputs`` (B, L) sees."""
        return causal_mask(inputs >= 0)

    def check_inputs(self, inputs: Tensor) -> None:
        """Raises ``ValueError`` unless ``inputs`` are (B, L) with L <= max_length."""
        if inputs.ndim != 2 or inputs.shape[1] > self.config.max_length:
            raise ValueError(
                f"inputs: expected shape (B, L) with L <= {self.config.max_length}, got {tuple(inputs.shape)}"
            )

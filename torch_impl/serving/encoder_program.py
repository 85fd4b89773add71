"""The encoder as a program of ``torch.export``."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from ...recsys import PAD
from ...recsys.serving.encoder_program import EncoderProgram
from ..models import build_model
from ..models.sequence_model import SequenceModel


class _NextItemHidden(nn.Module):
    """(B, max_length) ids -> (B, D), as a module: what ``torch.export`` takes."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model.next_item_hidden(inputs)


@torch.no_grad()
def encoder_program(model: SequenceModel) -> EncoderProgram:
    """``model.next_item_hidden`` in float32 on a CPU, with the item rows (V, D) inside; it holds the weights of
    ``model`` where these are on a CPU, else copies."""
    # Two rows: a dimension of one would be taken for a constant.
    example = torch.full((2, model.config.max_length), PAD, dtype=torch.int32)
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        _NextItemHidden(_on_cpu(model)), (example,), dynamic_shapes={"inputs": {0: batch}}, strict=False
    )
    return EncoderProgram(
        file="encoder.pt2",
        framework="torch",
        version=torch.__version__,
        platforms=("cpu",),
        write=lambda path: torch.export.save(program, path),
    )


def _on_cpu(model: SequenceModel) -> SequenceModel:
    """The model with the item rows as its table: features, which they have already, are no part of it."""
    config = dataclasses.replace(model.config, num_features=0)
    with torch.device("meta"):
        twin = build_model(config)
    state = {**model.state_dict(), "item_table": model.item_rows().detach()}
    twin.load_state_dict({name: state[name].cpu() for name in twin.state_dict()}, assign=True)
    return twin.eval().requires_grad_(False)

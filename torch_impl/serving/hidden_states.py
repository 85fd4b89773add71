"""The hidden states of given histories."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ...recsys import Ragged
from ...recsys.serving.hidden_states import encode_batches
from ..models.sequence_model import SequenceModel


@torch.no_grad()
def hidden_states(model: SequenceModel, histories: Ragged) -> npt.NDArray[np.float32]:
    """Those (rows, D) of a model in evaluation mode that score the next item after each history."""
    rows, device = model.item_rows(), model.item_table.device

    def encode(inputs: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        return model.next_item_hidden(torch.from_numpy(inputs).to(device), rows).float().cpu().numpy()

    return encode_batches(encode, model.config, histories)

"""A training loss whose forward and backward are CUDA graphs: small models otherwise wait for the host, which starts
hundreds of kernels a step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...kernels.negatives.objectives import Objective
from ..models.sequence_model import SequenceModel

Loss = Callable[[SequenceModel, Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""The mean loss of (model, inputs (B, L), targets (B, L), seed (1,) int64, frequencies (V,) or None)."""


def can_capture(objective: Objective, device: torch.device) -> bool:
    """Whether the loss runs on a GPU without waiting for it; the references look at their inputs on the host."""
    return device.type == "cuda" and objective.impl != "reference"


class CapturedLoss:
    """``loss`` of ``model`` on batches of the shapes of those given, captured at once and replayed at each call.

    Results and gradients are those of ``loss``, and the next replay overwrites both: accumulating gradients over steps,
    or zeroing them in place, is not for it. Parameters must stay in their memory, as optimisers and ``load_state_dict``
    leave them. Dropout follows ``torch.manual_seed`` as without a graph; capturing draws from torch's generator.
    """

    def __init__(
        self,
        model: SequenceModel,
        loss: Loss,
        inputs: Tensor,
        targets: Tensor,
        seed: Tensor,
        frequencies: Tensor | None,
    ) -> None:
        self._module = _LossModule(model, loss)
        arguments = tuple(argument.clone() for argument in (inputs, targets, seed, frequencies) if argument is not None)
        device = inputs.device.type
        # Without the cache of casts, which would outlive the capture that made them.
        enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
        with torch.autocast(device, dtype, enabled=enabled, cache_enabled=False):
            torch.cuda.make_graphed_callables(self._module, arguments, allow_unused_input=True)  # replaces its forward

    def __call__(self, inputs: Tensor, targets: Tensor, seed: Tensor, frequencies: Tensor | None) -> Tensor:
        return self._module(*(argument for argument in (inputs, targets, seed, frequencies) if argument is not None))


class _LossModule(nn.Module):
    """The loss as a module with the model's parameters, which is what can be captured."""

    def __init__(self, model: SequenceModel, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, inputs: Tensor, targets: Tensor, seed: Tensor, frequencies: Tensor | None = None) -> Tensor:
        return self._loss(self.model, inputs, targets, seed, frequencies)

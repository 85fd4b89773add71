"""One step of training, of fixed shapes: on a GPU a CUDA graph, so that small models are not bound by the host."""

from __future__ import annotations

from collections.abc import Callable

import torch
from cce_minus.recsys import TrainConfig
from cce_minus.torch_impl.loss.seeds import seed_words
from cce_minus.torch_impl.models.sequence_model import SequenceModel
from cce_minus.torch_impl.training.objective import make_optimizer, step_seed
from torch import Tensor

Loss = Callable[[SequenceModel, Tensor, Tensor, Tensor], Tensor]
"""The mean loss of (model, inputs (B, L), targets (B, L), seed (1,) int64)."""

_WARM_UP = 3  # steps before a capture: libraries set themselves up and kernels compile


class TrainingStep:
    """Forward, backward and AdamW on batches (batch_size, max_length), as the training command does them.

    What is drawn in step s follows from (config.seed, s), as there. On a GPU the first call captures the step; the
    model and the memory of its parameters must stay what they are.
    """

    def __init__(self, model: SequenceModel, config: TrainConfig, loss: Loss) -> None:
        self.model = model
        self.config = config
        self.device = model.item_table.device
        shape = config.batch_size, config.max_length
        self.inputs = torch.full(shape, -1, dtype=torch.int32, device=self.device)
        self.targets = torch.full(shape, -100, dtype=torch.int32, device=self.device)
        self.seed = torch.zeros(1, dtype=torch.int64, device=self.device)
        self.loss_sum = torch.zeros((), device=self.device)
        self._loss = loss
        self._optimizer, _ = make_optimizer(model, config)
        self._graph: torch.cuda.CUDAGraph | None = None
        if self.device.type == "cuda":
            for group in self._optimizer.param_groups:
                group["capturable"] = True
                group["lr"] = torch.zeros((), device=self.device)

    def __call__(self, inputs: Tensor, targets: Tensor, step: int) -> None:
        """Train on a batch, on the model's device; the loss is added to ``loss_sum``."""
        self.inputs.copy_(inputs)
        self.targets.copy_(targets)
        if self.device.type == "cuda" and self._graph is None:
            self._graph = self._capture()
        seed = step_seed(self.config, step)
        self.seed.copy_(seed_words(seed, self.device).view(torch.int64))
        self._set_rate(self.config.learning_rate * min(1.0, (step + 1) / max(self.config.warmup_steps, 1)))
        torch.manual_seed(seed)  # dropout's
        if self._graph is None:
            self._run()
        else:
            self._graph.replay()

    def replay(self) -> None:
        """On a GPU, the graph of the last step once more: its batch, draws and rate, with nothing that the host
        prepares."""
        if self._graph is None:
            raise RuntimeError("no step has been captured: call it with a batch first, on a GPU")
        self._graph.replay()

    def _set_rate(self, rate: float) -> None:
        for group in self._optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _run(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        enabled = self.config.precision == "bf16"
        # Without the cache of casts, which would outlive the capture that made them.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled, cache_enabled=False):
            loss = self._loss(self.model, self.inputs, self.targets, self.seed)
        loss.backward()
        self._optimizer.step()
        self.loss_sum += loss.detach()

    def _capture(self) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):  # at a rate of 0, so that no parameter moves
                self._set_rate(0.0)
                self._run()
            for state in self._optimizer.state.values():
                for value in state.values():
                    value.zero_()
            self._optimizer.zero_grad(set_to_none=True)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):  # whose first matrix product took cuBLAS's workspace
            self._run()
        self.loss_sum.zero_()
        return graph

"""The loss in a model of your own, PyTorch: a GRU recommender trained with full cross-entropy, then with the sampled
loss.

    python docs/examples/loss_in_torch.py

Runs on a CPU in seconds with the plain reference, on an NVIDIA GPU with the kernels. ``loss_in_flax.py`` is the same in
Flax.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from cce_minus.torch_impl import UniformNegatives, sampled_linear_cross_entropy
from torch import Tensor, nn

ITEMS, LENGTH, DIM = 1000, 16, 48
BATCH, STEPS, NEGATIVES, K = 32, 40, 128, 10
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

LossFunction = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def make_sequences(rng: np.random.Generator, successor: np.ndarray, count: int) -> np.ndarray:
    """Sequences (count, LENGTH + 1) of a noisy Markov chain: an item's own successor with probability 0.8, else any
    item."""
    items = rng.integers(0, ITEMS, (count, LENGTH + 1))
    for i in range(LENGTH):
        follows = rng.random(count) < 0.8
        items[follows, i + 1] = successor[items[follows, i]]
    return items


class Recommender(nn.Module):
    """Hidden states of a sequence's items, and the table of items that they are compared with."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(ITEMS, DIM)
        self.gru = nn.GRU(DIM, DIM, batch_first=True)
        self.table = nn.Parameter(0.1 * torch.randn(ITEMS, DIM))

    def forward(self, items: Tensor) -> Tensor:
        return self.gru(self.items(items))[0]  # (batch, length, DIM)


def full(hidden: Tensor, table: Tensor, target: Tensor, step: int) -> Tensor:
    """The loss as it was: all logits in memory."""
    return nn.functional.cross_entropy((hidden @ table.T).flatten(0, 1), target.flatten())


def sampled(hidden: Tensor, table: Tensor, target: Tensor, step: int) -> Tensor:
    """The swap. Without ``seed`` the draw follows torch's generator; with it, a step can be repeated."""
    return sampled_linear_cross_entropy(hidden, table, target, UniformNegatives(NEGATIVES), seed=step)


def train(loss_function: LossFunction, successor: np.ndarray) -> Recommender:
    torch.manual_seed(0)
    rng = np.random.default_rng(1)
    model = Recommender().to(DEVICE)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(STEPS):
        batch = torch.from_numpy(make_sequences(rng, successor, BATCH)).to(DEVICE)
        optimizer.zero_grad()
        loss = loss_function(model(batch[:, :-1]), model.table, batch[:, 1:], step)
        loss.backward()
        optimizer.step()
        if step % 13 == 0 or step == STEPS - 1:
            print(f"{loss_function.__name__} step {step} loss {loss.item():.3f}")
    return model


@torch.no_grad()
def hit_rate(model: Recommender, successor: np.ndarray) -> float:
    """How often the last item of unseen sequences is among the K that score highest."""
    batch = torch.from_numpy(make_sequences(np.random.default_rng(2), successor, 500)).to(DEVICE)
    scores = model(batch[:, :-1])[:, -1] @ model.table.T
    return (scores.topk(K).indices == batch[:, -1:]).any(1).float().mean().item()


def main() -> None:
    successor = np.random.default_rng(0).permutation(ITEMS)
    for loss_function in (full, sampled):
        model = train(loss_function, successor)
        print(f"{loss_function.__name__} hit rate at {K}: {hit_rate(model, successor):.3f} (by chance {K / ITEMS:.3f})")


if __name__ == "__main__":
    main()

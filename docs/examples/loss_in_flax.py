"""The loss in a model of your own, Flax NNX: a GRU recommender trained with full cross-entropy, then with the sampled
loss.

    python docs/examples/loss_in_flax.py

Runs on a CPU in seconds with the plain reference, on an NVIDIA GPU with the kernels. ``loss_in_torch.py`` is the same
in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from cce_minus.jax_impl import UniformNegatives, sampled_linear_cross_entropy
from flax import nnx
from jax import Array

ITEMS, LENGTH, DIM = 1000, 16, 48
BATCH, STEPS, NEGATIVES, K = 32, 40, 128, 10

LossFunction = Callable[[Array, Array, Array, Array], Array]


def make_sequences(rng: np.random.Generator, successor: np.ndarray, count: int) -> np.ndarray:
    """Sequences (count, LENGTH + 1) of a noisy Markov chain: an item's own successor with probability 0.8, else any
    item."""
    items = rng.integers(0, ITEMS, (count, LENGTH + 1))
    for i in range(LENGTH):
        follows = rng.random(count) < 0.8
        items[follows, i + 1] = successor[items[follows, i]]
    return items


class Recommender(nnx.Module):
    """Hidden states of a sequence's items, and the table of items that they are compared with."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.items = nnx.Embed(ITEMS, DIM, embedding_init=nnx.initializers.normal(1.0), rngs=rngs)
        self.gru = nnx.RNN(nnx.GRUCell(DIM, DIM, rngs=rngs))
        self.table = nnx.Param(0.1 * jax.random.normal(rngs.params(), (ITEMS, DIM)))

    def __call__(self, items: Array) -> Array:
        return self.gru(self.items(items))  # (batch, length, DIM)


def full(hidden: Array, table: Array, target: Array, step: Array) -> Array:
    """The loss as it was: all logits in memory."""
    return optax.softmax_cross_entropy_with_integer_labels(hidden @ table.T, target).mean()


def sampled(hidden: Array, table: Array, target: Array, step: Array) -> Array:
    """The swap. A draw needs a ``seed``: a number that changes with the step, or a PRNG key."""
    return sampled_linear_cross_entropy(hidden, table, target, UniformNegatives(NEGATIVES), seed=step)


def train(loss_function: LossFunction, successor: np.ndarray) -> Recommender:
    rng = np.random.default_rng(1)
    model = Recommender(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adamw(1e-2), wrt=nnx.Param)

    @nnx.jit
    def update(model: Recommender, optimizer: nnx.Optimizer, batch: Array, step: Array) -> Array:
        def loss_of(model: Recommender) -> Array:
            return loss_function(model(batch[:, :-1]), model.table[...], batch[:, 1:], step)

        loss, gradients = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, gradients)
        return loss

    for step in range(STEPS):
        batch = jnp.asarray(make_sequences(rng, successor, BATCH))
        loss = update(model, optimizer, batch, jnp.asarray(step))
        if step % 13 == 0 or step == STEPS - 1:
            print(f"{loss_function.__name__} step {step} loss {loss.item():.3f}")
    return model


def hit_rate(model: Recommender, successor: np.ndarray) -> float:
    """How often the last item of unseen sequences is among the K that score highest."""
    batch = jnp.asarray(make_sequences(np.random.default_rng(2), successor, 500))
    scores = model(batch[:, :-1])[:, -1] @ model.table.T
    return (jax.lax.top_k(scores, K)[1] == batch[:, -1:]).any(1).mean().item()


def main() -> None:
    successor = np.random.default_rng(0).permutation(ITEMS)
    for loss_function in (full, sampled):
        model = train(loss_function, successor)
        print(f"{loss_function.__name__} hit rate at {K}: {hit_rate(model, successor):.3f} (by chance {K / ITEMS:.3f})")


if __name__ == "__main__":
    main()

"""LiGR against its formulas in NumPy, float64."""

from __future__ import annotations

from typing import Any

import numpy as np
from safetensors.numpy import load_file
from scipy.special import expit, softmax

from tests.models.conftest import rewrite

HEADS, DIM, LENGTH = 2, 16, 12


def layer_norm(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + 1e-6)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def attention(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Causal attention of one sequence (L, D) without padding, head by head and place by place."""
    query, key, value = np.split(linear(x, weights, f"{name}.qkv"), 3, axis=-1)
    width = DIM // HEADS
    mixed = np.zeros_like(x)
    for head in range(HEADS):
        own = slice(head * width, (head + 1) * width)
        for place in range(len(x)):
            scores = key[: place + 1, own] @ query[place, own] / np.sqrt(width)
            mixed[place, own] = softmax(scores) @ value[: place + 1, own]
    return linear(mixed, weights, f"{name}.output")


def swiglu(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    gate = linear(x, weights, f"{name}.gate")
    return linear(gate * expit(gate) * linear(x, weights, f"{name}.expand"), weights, f"{name}.contract")


def ligr(items: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """The hidden states (L, D) of one sequence (L,) without padding."""
    x = np.sqrt(DIM) * weights["item_table"][items] + weights["position_table"][LENGTH - len(items) :]
    for block in ("blocks.0", "blocks.1"):
        branch = attention(layer_norm(x, weights, f"{block}.attention_norm"), weights, f"{block}.attention")
        x = x + expit(linear(x, weights, f"{block}.attention_gate")) * branch
        branch = swiglu(layer_norm(x, weights, f"{block}.feed_forward_norm"), weights, f"{block}.feed_forward")
        x = x + expit(linear(x, weights, f"{block}.feed_forward_gate")) * branch
    return layer_norm(x, weights, "final_norm")


def test_blocks_are_their_formulas(framework: Any, sequences: np.ndarray, tmp_path):
    model, path = framework.build(model="ligr"), tmp_path / "weights.safetensors"
    framework.save(model, path)
    # Large weights and no zero biases, so that every gate and every term shows.
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.3, tensor.shape).astype(np.float32) for name, tensor in load_file(path).items()}
    rewrite(path, weights)
    framework.load(model, path)
    hidden = framework.hidden(model, sequences)
    exact = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    for row, first in ((0, 0), (1, 5), (2, 11), (4, 0)):
        np.testing.assert_allclose(hidden[row, first:], ligr(sequences[row, first:], exact), rtol=0, atol=2e-5)

"""Both frameworks' models behind one face, so that a test is written once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.jax_impl.models import build_model as build_jax_model
from cce_minus.jax_impl.models import weights as jax_weights
from cce_minus.jax_impl.models.sequence_model import SequenceModel as JaxModel
from cce_minus.jax_impl.serving import evaluate as jax_evaluate
from cce_minus.jax_impl.serving import ranking as jax_ranking
from cce_minus.jax_impl.serving import recommend as jax_recommend
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.torch_impl.models import build_model as build_torch_model
from cce_minus.torch_impl.models import weights as torch_weights
from cce_minus.torch_impl.models.sequence_model import SequenceModel as TorchModel
from cce_minus.torch_impl.serving import evaluate as torch_evaluate
from cce_minus.torch_impl.serving import ranking as torch_ranking
from cce_minus.torch_impl.serving import recommend as torch_recommend
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import save_file

MODELS = ("sasrec", "bert4rec", "ligr")
CAUSAL = ("sasrec", "ligr")

SIZES = {"num_items": 37, "max_length": 12, "dim": 16, "num_blocks": 2, "num_heads": 2, "dropout": 0.3}


@dataclass(frozen=True)
class Framework:
    """What a test needs of one framework, on NumPy arrays."""

    name: str
    build: Callable[..., Any]
    hidden: Callable[[Any, np.ndarray], np.ndarray]
    next_item_hidden: Callable[[Any, np.ndarray], np.ndarray]
    save: Callable[..., None]
    load: Callable[..., None]
    evaluate: Callable[..., dict[str, float]]
    recommend: Callable[..., np.ndarray]
    recommend_with_scores: Callable[..., tuple[np.ndarray, np.ndarray]]
    target_ranks: Callable[..., np.ndarray]
    top_items: Callable[..., np.ndarray]


def build_torch(seed: int = 0, **changes: Any) -> TorchModel:
    torch.manual_seed(seed)
    return build_torch_model(ModelConfig(**(SIZES | changes))).eval()


def build_jax(seed: int = 0, **changes: Any) -> JaxModel:
    return build_jax_model(ModelConfig(**(SIZES | changes)), rngs=nnx.Rngs(seed))


def torch_hidden(model: TorchModel, inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.from_numpy(inputs)).numpy()


def torch_next_item_hidden(model: TorchModel, inputs: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model.next_item_hidden(torch.from_numpy(inputs)).numpy()


@nnx.jit
def jax_forward(model: JaxModel, inputs: jax.Array) -> jax.Array:
    return model(inputs)


def jax_hidden(model: JaxModel, inputs: np.ndarray) -> np.ndarray:
    return np.asarray(jax_forward(model, jnp.asarray(inputs)))


@nnx.jit
def jax_next_item_forward(model: JaxModel, inputs: jax.Array) -> jax.Array:
    return model.next_item_hidden(inputs)


def jax_next_item_hidden(model: JaxModel, inputs: np.ndarray) -> np.ndarray:
    return np.asarray(jax_next_item_forward(model, jnp.asarray(inputs)))


def torch_ranks(hidden: np.ndarray, table: np.ndarray, target: np.ndarray, chunk: int) -> np.ndarray:
    return torch_ranking.target_ranks(
        torch.from_numpy(hidden), torch.from_numpy(table), torch.from_numpy(target), chunk
    ).numpy()


def torch_top(hidden: np.ndarray, table: np.ndarray, k: int, chunk: int) -> np.ndarray:
    return torch_ranking.top_items(torch.from_numpy(hidden), torch.from_numpy(table), k, chunk).numpy()


def jax_ranks(hidden: np.ndarray, table: np.ndarray, target: np.ndarray, chunk: int) -> np.ndarray:
    return np.asarray(jax_ranking.target_ranks(*map(jnp.asarray, (hidden, table, target)), chunk))


def jax_top(hidden: np.ndarray, table: np.ndarray, k: int, chunk: int) -> np.ndarray:
    return np.asarray(jax_ranking.top_items(*map(jnp.asarray, (hidden, table)), k, chunk))


FRAMEWORKS = {
    "torch": Framework(
        "torch", build_torch, torch_hidden, torch_next_item_hidden, torch_weights.save_weights,
        torch_weights.load_weights,
        torch_evaluate.evaluate, torch_recommend.recommend, torch_recommend.recommend_with_scores, torch_ranks,
        torch_top,
    ),
    "jax": Framework(
        "jax", build_jax, jax_hidden, jax_next_item_hidden, jax_weights.save_weights, jax_weights.load_weights,
        jax_evaluate.evaluate, jax_recommend.recommend, jax_recommend.recommend_with_scores, jax_ranks, jax_top,
    ),
}  # fmt: skip


def rewrite(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Puts other tensors into a weights file, under its old configuration."""
    with safe_open(path, framework="np") as stored:
        metadata = stored.metadata()
    save_file(tensors, path, metadata=metadata)


@pytest.fixture(params=["torch", "jax"])
def framework(request: pytest.FixtureRequest) -> Framework:
    return FRAMEWORKS[request.param]


@pytest.fixture
def other(framework: Framework) -> Framework:
    """The framework that `framework` is not."""
    return FRAMEWORKS["jax" if framework.name == "torch" else "torch"]


@pytest.fixture(params=MODELS)
def model_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def sequences() -> np.ndarray:
    """(5, 12) items: full, left-padded, one item, and a row of nothing but padding."""
    items = np.random.default_rng(0).integers(0, SIZES["num_items"], (5, 12)).astype(np.int32)
    items[1, :5] = -1
    items[2, :11] = -1
    items[3] = -1
    return items

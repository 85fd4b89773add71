"""On a GPU: PyTorch's training with captured steps is the same training without them, and resumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
import torch
from cce_minus.recsys import TrainConfig
from cce_minus.torch_impl.train import train

pytestmark = pytest.mark.gpu

Make = Callable[..., TrainConfig]

RUNS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "half precision": {"precision": "bf16"},
    "independent": {"group_size": 1},
    "all": {"negatives": "all"},
    "popularity": {"negatives": "popularity"},
    "in-batch": {"negatives": "in-batch"},
    "gbce": {"loss": "gbce"},
    "sce": {"loss": "sce"},
    "bert4rec": {"model": "bert4rec"},
    "ligr": {"model": "ligr"},
}


@pytest.mark.parametrize("name", RUNS)
def test_captured_training_is_eager_training(name: str, make_config: Make):
    options = {"device": "cuda", "dropout": 0.3, **RUNS[name]}
    with mock.patch("torch.cuda.make_graphed_callables", wraps=torch.cuda.make_graphed_callables) as capture:
        captured = train(make_config("captured", **options))
        assert capture.call_count == 1
        with mock.patch("cce_minus.torch_impl.training.lightning_module.can_capture", return_value=False):
            eager = train(make_config("eager", **options))
        assert capture.call_count == 1
    assert len(set(captured.losses)) == len(captured.losses)
    assert captured.losses == pytest.approx(eager.losses, rel=1e-2 if name == "half precision" else 1e-4)


def test_resumed_captured_training_equals_an_uninterrupted_one(make_config: Make):
    whole = train(make_config("whole", device="cuda", epochs=4))
    first = make_config("parts", device="cuda", epochs=2)
    train(first)
    parts = train(replace(first, epochs=4, resume=True))
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)

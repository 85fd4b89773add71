from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from cce_minus.recsys import ConfigError, TrainConfig


def test_json_round_trip():
    config = TrainConfig(dim=32, num_heads=4, dropout=0, titles="titles.csv", shuffle_rows=False, seed=7)
    assert TrainConfig.from_json(config.to_json()) == config
    assert TrainConfig.from_json("{}") == TrainConfig()
    assert set(json.loads(config.to_json())) == {field.name for field in dataclasses.fields(config)}


def test_unknown_options_are_named():
    with pytest.raises(ConfigError, match=r"unknown options depth, width; known are .*num_blocks"):
        TrainConfig.from_json('{"width": 1, "depth": 2}')


@pytest.mark.parametrize("text", ["[1]", "3", "not json", ""])
def test_text_that_is_no_object(text: str):
    with pytest.raises(ConfigError, match="config: expected a JSON object"):
        TrainConfig.from_json(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data", ""),
        ("user_column", ""),
        ("out", ""),
        ("split", "random"),
        ("max_length", 0),
        ("dim", 0),
        ("dim", 64.0),
        ("num_blocks", 0),
        ("num_heads", 0),
        ("num_heads", 3),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", float("nan")),
        ("negatives", -1),
        ("group_size", 8),
        ("group_size", 100),
        ("shuffle_rows", 1),
        ("batch_size", 0),
        ("batch_size", True),
        ("learning_rate", 0.0),
        ("learning_rate", float("inf")),
        ("learning_rate", "fast"),
        ("weight_decay", -1.0),
        ("warmup_steps", -1),
        ("epochs", 0),
        ("patience", 0),
        ("eval_every", 0),
        ("seed", -1),
        ("seed", 2**32),
        ("precision", "fp16"),
        ("device", "tpu"),
        ("impl", "eager"),
        ("titles", 3),
        ("init_weights", 3),
        ("resume", "yes"),
    ],
)
def test_bad_values_name_the_option(name: str, value: Any):
    with pytest.raises(ConfigError, match=rf"^{name}: expected .*, got "):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [("negatives", 0), ("dropout", 0.0), ("group_size", 1), ("warmup_steps", 0), ("seed", 2**32 - 1)],
)
def test_values_at_the_bounds(name: str, value: Any):
    assert getattr(TrainConfig(**{name: value}), name) == value

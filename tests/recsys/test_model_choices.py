from __future__ import annotations

import pytest
from cce_minus.recsys import ConfigError, TrainConfig
from cce_minus.recsys.run.model_choices import MODELS
from cce_minus.recsys.run.model_config import ModelConfig


@pytest.mark.parametrize("model", MODELS)
def test_a_model_takes_its_part_of_a_run(model: str):
    config = ModelConfig.from_train(
        TrainConfig(model=model, max_length=7, dim=8, num_blocks=3, num_heads=4, dropout=0.25), 11
    )
    assert config == ModelConfig(11, model, max_length=7, dim=8, num_blocks=3, num_heads=4, dropout=0.25)


@pytest.mark.parametrize("model", ["sasrec", "ligr"])
def test_causal_models_refuse_a_mask_probability(model: str):
    with pytest.raises(
        ConfigError, match=rf"mask_probability: expected its default 0\.2 with model = {model}, .*got 0\.3"
    ):
        TrainConfig(model=model, mask_probability=0.3)
    assert TrainConfig(model=model, mask_probability=0.2, max_length=1).max_length == 1


def test_bert4rec_needs_a_place_beside_its_mask():
    with pytest.raises(ConfigError, match="max_length: expected at least 2 with model = bert4rec, got 1"):
        TrainConfig(model="bert4rec", max_length=1)
    assert TrainConfig(model="bert4rec", mask_probability=0.6, max_length=2).mask_probability == 0.6

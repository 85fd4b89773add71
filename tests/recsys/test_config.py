from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from cce_minus.recsys import ConfigError, TrainConfig, parse_cutoffs
from cce_minus.recsys.run.loss_choices import LOSSES, NEGATIVES


def test_json_round_trip():
    config = TrainConfig(dim=32, num_heads=4, dropout=0, titles="titles.csv", shuffle_rows=False, seed=7)
    assert TrainConfig.from_json(config.to_json()) == config
    assert TrainConfig.from_json("{}") == TrainConfig()
    assert set(json.loads(config.to_json())) == {"schema", *(field.name for field in dataclasses.fields(config))}


def test_options_of_a_later_version_are_refused():
    """Of earlier ones, the options added since are what runs did then."""
    values = {"dim": 32, "optimizer": "adamw", "negatives": "all", "num_negatives": 256}
    then = TrainConfig(dim=32, negatives="all", group_by_length=False)
    written = {"data": "x", "split": "leave-one-out", "model": "sasrec", "loss": "softmax", "seed": 0, "out": "y"}
    assert not TrainConfig.from_json(json.dumps(values | written)).group_by_length  # of before there was a number
    assert TrainConfig.from_json(json.dumps({"dim": 32})) == TrainConfig(dim=32)  # by hand
    with pytest.raises(ConfigError, match="num_negatives: expected its default 0 with negatives = all"):
        TrainConfig.from_json(json.dumps(values))
    for schema in ({"schema": 1}, {"schema": 2}):
        assert TrainConfig.from_json(json.dumps({**schema, **values})) == then
        drawn = {"negatives": "uniform", "num_negatives": 100}
        assert TrainConfig.from_json(json.dumps({**schema, **drawn})).num_negatives == 100
    for schema in (0, 4, "2", 1.5, None):
        with pytest.raises(ConfigError, match=rf"config: expected schema 1 to 3 .*, got {schema}"):
            TrainConfig.from_json(json.dumps({"schema": schema, **values}))


def test_options_of_optimizers_are_checked():
    assert TrainConfig(optimizer="sgd", momentum=0.0).momentum == 0
    with pytest.raises(ConfigError, match=r"momentum: expected its default 0\.9 with optimizer = adam, which does not"):
        TrainConfig(optimizer="adam", momentum=0.5)
    for name, value in {
        "optimizer": "lion", "schedule": "step", "data_on": "gpu", "accumulate": 0, "momentum": 1.0, "clip_norm": -1.0,
        "ema_decay": 1.0,
    }.items():  # fmt: skip
        with pytest.raises(ConfigError, match=f"{name}: expected"):
            TrainConfig(**{"optimizer": "sgd", name: value})


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
        ("rating_column", ""),
        ("rating_column", "stars"),
        ("min_rating", float("nan")),
        ("min_rating", "4"),
        ("min_rating", True),
        ("min_item_events", 0),
        ("min_user_events", 0),
        ("split_quantile", 1.0),
        ("split_quantile", 0.8),
        ("valid_fraction", 0.0),
        ("valid_fraction", 0.1),
        ("train_on_valid", 1),
        ("metrics_at", ""),
        ("metrics_at", "5"),
        ("metrics_at", "0,10"),
        ("metrics_at", "10,10"),
        ("metrics_at", "10;20"),
        ("filter_seen", 1),
        ("max_length", -1),
        ("dim", 0),
        ("dim", 64.0),
        ("num_blocks", 0),
        ("num_heads", 0),
        ("num_heads", 3),
        ("dropout", 1.0),
        ("dropout", -0.1),
        ("dropout", float("nan")),
        ("model", "gru4rec"),
        ("mask_probability", 0.0),
        ("mask_probability", 1.0),
        ("mask_probability", "often"),
        ("loss", "hinge"),
        ("negatives", "random"),
        ("negatives", 256),
        ("num_negatives", -1),
        ("pool_size", 0),
        ("popularity_power", -0.5),
        ("popularity_power", float("inf")),
        ("frequency_rate", 0.0),
        ("frequency_rate", 1.5),
        ("logq_correction", 0),
        ("gbce_t", -0.1),
        ("gbce_t", 1.1),
        ("n_buckets", -1),
        ("bucket_size_x", -1),
        ("bucket_size_y", 0),
        ("mix_x", 1),
        ("group_size", 8),
        ("group_size", 100),
        ("shuffle_rows", 1),
        ("batch_size", -1),
        ("batch_size", True),
        ("learning_rate", 0.0),
        ("learning_rate", float("inf")),
        ("learning_rate", "fast"),
        ("weight_decay", -1.0),
        ("warmup_steps", -1),
        ("epochs", 0),
        ("patience", -1),
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
    [("num_negatives", 1), ("dropout", 0.0), ("group_size", 1), ("warmup_steps", 0), ("seed", 2**32 - 1)],
)
def test_values_at_the_bounds(name: str, value: Any):
    assert getattr(TrainConfig(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"patience": 2}, "patience"),
        ({"eval_every": 2}, "eval_every"),
        ({"split": "global-temporal", "valid_fraction": 0.1}, "valid_fraction"),
        ({"split": "sessions", "valid_fraction": 0.1}, "valid_fraction"),
    ],
)
def test_options_of_validation_without_one_are_refused(options: dict[str, Any], name: str):
    assert TrainConfig(**options).train_on_valid is False
    with pytest.raises(
        ConfigError, match=rf"^{name}: expected its default .* with train_on_valid, which does not use it"
    ):
        TrainConfig(**options, train_on_valid=True)


@pytest.mark.parametrize(
    "option",
    [{"train_on_valid": True}, {"patience": 2}, {"eval_every": 2}, {"metrics_at": "5,10"}, {"filter_seen": True},
     {"test_users": 9}, {"split_quantile": 0.8}, {"valid_fraction": 0.1}],
)  # fmt: skip
def test_options_of_held_out_events_without_any_are_refused(option: dict[str, Any]):
    with pytest.raises(ConfigError, match=rf"^{next(iter(option))}: expected its default .* with split = none"):
        TrainConfig(**option, split="none")


@pytest.mark.parametrize("name", ["split_quantile", "valid_fraction"])
def test_fractions_belong_to_the_splits_that_use_them(name: str):
    options: dict[str, Any] = {name: 0.5}
    for split in ("global-temporal", "sessions"):
        assert getattr(TrainConfig(split=split, **options), name) == 0.5
    with pytest.raises(
        ConfigError, match=rf"^{name}: expected its default .* with split = leave-one-out, which does not use it"
    ):
        TrainConfig(split="leave-one-out", **options)


def test_ratings_may_be_whole_numbers():
    config = TrainConfig(min_rating=4, rating_column="stars")
    assert TrainConfig.from_json(config.to_json()) == config


def test_cutoffs_keep_their_order():
    assert parse_cutoffs("20, 5,10") == (20, 5, 10)


DEFINED = {
    "softmax": {"uniform", "all", "popularity", "log-uniform", "in-batch", "mixed", "hard", "auto"},
    "bce": {"uniform", "popularity", "log-uniform"},
    "gbce": {"uniform"},
    "sce": {"uniform"},
}


def test_every_loss_has_its_negatives():
    assert set(DEFINED) == set(LOSSES)
    for loss in LOSSES:
        for negatives in NEGATIVES:
            if negatives == "auto":  # which other losses have one answer to
                expected = "auto" if loss == "softmax" else "uniform"
                assert TrainConfig(loss=loss, negatives=negatives).negatives == expected
            elif negatives in DEFINED[loss]:
                config = TrainConfig(loss=loss, negatives=negatives)
                assert (config.loss, config.negatives) == (loss, negatives)
            else:
                with pytest.raises(
                    ConfigError, match=rf"^negatives: expected .* with loss = {loss} \(.+\), got {negatives}$"
                ):
                    TrainConfig(loss=loss, negatives=negatives)


OPTIONS = {
    "num_negatives": 64, "pool_size": 2048, "popularity_power": 1.0, "frequency_rate": 0.1, "logq_correction": False,
    "group_size": 64,
    "shuffle_rows": False, "gbce_t": 0.5, "n_buckets": 10, "bucket_size_x": 10, "bucket_size_y": 10, "mix_x": True,
}  # fmt: skip
DRAWN = {"num_negatives", "group_size", "shuffle_rows"}
BUCKETS = {"n_buckets", "bucket_size_x", "bucket_size_y", "mix_x"}


@pytest.mark.parametrize(
    ("loss", "negatives", "used"),
    [
        ("softmax", "uniform", DRAWN | {"logq_correction"}),
        ("softmax", "all", set()),
        ("softmax", "auto", {"logq_correction", *DRAWN}),
        ("softmax", "popularity", DRAWN | {"popularity_power", "logq_correction"}),
        ("softmax", "log-uniform", DRAWN | {"logq_correction"}),
        ("softmax", "in-batch", {"group_size", "shuffle_rows", "frequency_rate", "logq_correction"}),
        ("softmax", "mixed", DRAWN | {"frequency_rate", "logq_correction"}),
        ("softmax", "hard", DRAWN | {"pool_size"}),
        ("bce", "uniform", DRAWN),
        ("bce", "popularity", DRAWN | {"popularity_power"}),
        ("gbce", "uniform", DRAWN | {"gbce_t"}),
        ("sce", "uniform", BUCKETS),
    ],
)
def test_options_that_a_choice_does_not_use_are_refused(loss: str, negatives: str, used: set[str]):
    for name, value in OPTIONS.items():
        if name in used:
            assert getattr(TrainConfig(loss=loss, negatives=negatives, **{name: value}), name) == value
        else:
            with pytest.raises(ConfigError, match=rf"^{name}: expected its default .* does not use it, got {value}$"):
                TrainConfig(loss=loss, negatives=negatives, **{name: value})


@pytest.mark.parametrize("negatives", ["in-batch", "mixed"])
def test_uncorrected_negatives_follow_no_frequencies(negatives: str):
    with pytest.raises(
        ConfigError,
        match=r"^frequency_rate: expected its default 0.01 with no logq_correction, which does not use it, got 0.1$",
    ):
        TrainConfig(negatives=negatives, logq_correction=False, frequency_rate=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"negatives": "in-batch", "group_size": 1},
            "group_size: expected at least 16 with negatives = in-batch, got 1",
        ),
        (
            {"negatives": "popularity", "group_size": 1},
            "group_size: expected at least 16 with negatives = popularity, got 1",
        ),
        ({"negatives": "hard", "num_negatives": 2000}, "pool_size: expected at least num_negatives = 2000, got 1024"),
        (
            {"negatives": "log-uniform", "num_negatives": 2**21},
            "num_negatives: expected at most 1048576 with negatives = log-uni",
        ),
    ],
)
def test_sizes_that_do_not_go_with_the_negatives(options: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=f"^{message}"):
        TrainConfig(**options)


def test_names_and_limits_kept_on_both_sides_agree():
    from cce_minus.kernels.negatives import base, objectives
    from cce_minus.recsys.run import loss_choices

    assert objectives.LOSSES == loss_choices.LOSSES
    assert base.MOST_LISTED == loss_choices.MOST_LISTED
    assert {1, *(1 << n for n in range(4, 9))} == set(loss_choices.GROUP_SIZES)

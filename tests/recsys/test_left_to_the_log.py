"""What a run leaves to its log: the length of rows and the negatives."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cce_minus.recsys import Ragged, Split, TrainConfig
from cce_minus.recsys.run.left_to_the_log import model_ms, negative_ms, resolved


def split_of(lengths: list[int], num_items: int = 1) -> Split:
    rows = Ragged.from_rows([np.zeros(length, np.int32) for length in lengths])
    none = Ragged.from_rows([])
    return Split(rows, none, np.zeros(0, np.int32), none, np.zeros(0, np.int32), num_items)


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([*[3] * 9, 500], 56),  # the 90th percentile, 52.7 between the ninth and the tenth
        ([*[3] * 19, 500], 8),
        ([16] * 10, 16),
        ([17] * 10, 24),
        ([1000] * 10, 200),
    ],
)
def test_nine_in_ten_users_are_seen_whole(lengths: list[int], expected: int):
    for model in ("sasrec", "bert4rec"):
        assert resolved(TrainConfig(max_length=0, model=model), split_of(lengths)).max_length == expected
    given = TrainConfig(max_length=7, batch_size=4, patience=3, negatives="all")
    assert resolved(given, split_of(lengths)) is given


STUDY = Path(__file__).parents[2] / "benchmarks" / "results" / "study.csv"
ITEMS = {"git_commits": 136496, "retailrocket": 36968, "amazon_beauty_full": 54542, "nowplaying": 60416}


@pytest.mark.parametrize("dataset", ITEMS)
def test_the_fifth_is_what_was_measured(dataset: str):
    """On each of the study's sets the loss of the number that is chosen took 14 to 25% of a step."""
    with STUDY.open() as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == dataset and row["step_ms"]]
    row = next(row for row in rows if row["method"] == "CE-, groups of 128, K=16384")
    sizes: dict[str, Any] = {"batch_size": int(row["batch_size"]), "max_length": int(row["max_length"])}
    config = TrainConfig(negatives="auto", dim=128, num_blocks=2, num_heads=2, group_by_length=False, **sizes)
    # as many users a batch as are there, with so many targets a batch as were counted
    each = int(row["rows"]) // sizes["batch_size"] + 1
    lengths = [each + 1] * (int(row["rows"]) // each) + [2] * (sizes["batch_size"] - int(row["rows"]) // each)
    chosen = resolved(config, split_of(lengths, ITEMS[dataset]))
    assert chosen.negatives == "uniform"
    took = next(each for each in rows if each["method"] == f"CE-, groups of 128, K={chosen.num_negatives}")
    assert 0.14 < float(took["loss_ms"]) / float(took["step_ms"]) < 0.25
    rest = float(row["step_ms"]) - float(row["loss_ms"])
    places = sizes["batch_size"] * sizes["max_length"]
    assert model_ms(config, places) == pytest.approx(rest, rel=0.25)  # which has the item table's optimizer


@pytest.mark.parametrize(
    ("users", "expected"), [(1, 16), (600, 16), (1023, 16), (1024, 32), (2455, 64), (4096, 128), (10**5, 128)]
)
def test_few_users_make_small_batches(users: int, expected: int):
    split = split_of([3] * users + [1] * 5000)  # of whom those with one item have nothing to predict
    assert resolved(TrainConfig(), split).batch_size == expected
    assert resolved(TrainConfig(batch_size=7), split).batch_size == 7


@pytest.mark.parametrize(
    ("users", "expected"), [(10, 50), (943, 33), (2500, 20), (9999, 11), (10_000, 10), (20_000, 10)]
)
def test_few_users_are_given_more_patience(users: int, expected: int):
    split = split_of([3] * 40)
    split = replace(split, valid_history=Ragged.from_rows([[0]] * users), valid_target=np.zeros(users, np.int32))
    assert resolved(TrainConfig(), split).patience == expected
    assert resolved(TrainConfig(patience=3), split).patience == 3
    assert resolved(TrainConfig(test_users=2500), split).patience == max(expected, 20)
    assert resolved(TrainConfig(train_on_valid=True), split).patience == 0  # with nothing to wait for


@pytest.mark.parametrize(
    ("num_items", "options", "negatives", "num_negatives"),
    [
        (1000, {"batch_size": 32}, "all", 0),
        (1000, {"item_optimizer": "rowwise-adagrad", "batch_size": 2, "max_length": 64}, "uniform", 256),
        (10**6, {"batch_size": 512}, "uniform", 2048),
        (10**7, {"batch_size": 512}, "uniform", 2048),
        (10**5, {"batch_size": 4}, "all", 0),
        (10**6, {"batch_size": 4}, "uniform", 65536),
    ],
)
def test_all_items_where_they_cost_little(num_items: int, options: dict[str, Any], negatives: str, num_negatives: int):
    lengths = [51] * 512
    config = TrainConfig(negatives="auto", **{"max_length": 50, **options})
    chosen = resolved(config, split_of(lengths, num_items))
    assert (chosen.negatives, chosen.num_negatives) == (negatives, num_negatives)
    given = TrainConfig(num_negatives=7, batch_size=4, patience=3)
    assert resolved(given, split_of(lengths, num_items)) is given
    assert negative_ms(64) == pytest.approx(2 * negative_ms(32))

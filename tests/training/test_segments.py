"""Metrics of parts of the held-out targets, from the ranks that the metrics of all are made of."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import ConfigError, TrainConfig, item_counts, ndcg_at_k, prepare_data
from cce_minus.recsys.protocol.segments import BOUNDS, Segments, labels_of, segment_metrics
from cce_minus.recsys.run.experiment import held_out
from cce_minus.recsys.serving.recommender import BaseRecommender

from tests.training.commands import FRAMEWORKS, SMALL, call, error_of

HISTORY, ITEM = ["1-5", "6-20", "21-50", "51+"], ["0", "1-5", "6-50", "51+"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users with 2 to 70 events each, of items of which some are everywhere and some are at the end alone."""
    rng = np.random.default_rng(0)
    lengths = rng.choice([3, 5, 8, 15, 30, 70], 90)
    users = np.repeat(np.arange(90), lengths)
    steps = np.concatenate([np.arange(length) for length in lengths])
    items = np.minimum(rng.geometric(0.05, len(users)), 120)
    items[np.cumsum(lengths) - 1] = rng.integers(1, 160, 90)  # what is tested may be in no training event
    path = tmp_path_factory.mktemp("mixed") / "events.parquet"
    pq.write_table(pa.table({"user_id": users, "item_id": items, "timestamp": steps}), path)
    return path


@pytest.fixture(scope="module")
def run(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cce_minus.torch_impl.train import train

    config = TrainConfig(**SMALL, data=str(mixed), out=str(tmp_path_factory.mktemp("segments") / "run"))
    train(replace(config, metrics_at="5,10"))
    return Path(config.out)


def of_all(segments: dict[str, dict[str, float]], name: str) -> float:
    """The mean over segments, weighed by their targets."""
    there = [segment for segment in segments.values() if segment["targets"]]
    return sum(each["targets"] * each[name] for each in there) / sum(each["targets"] for each in there)


def test_labels_say_which_numbers_a_segment_has():
    assert [list(labels_of(bounds)) for bounds in BOUNDS.values()] == [HISTORY, ITEM]
    numbers = [1, 5, 6, 20, 21, 50, 51, 999]
    assert Segments.of(BOUNDS["history"], np.array(numbers)).segment.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert Segments.of(BOUNDS["item"], np.array([0, *numbers])).segment.tolist() == [0, 1, 1, 2, 2, 2, 2, 3, 3]


def test_segments_are_the_metrics_of_their_own_ranks():
    rng = np.random.default_rng(0)
    ranks, events = rng.integers(1, 30, 500), rng.integers(0, 80, 500)
    found = segment_metrics(ranks, {"item": events}, (5, 10))["item"]
    assert list(found) == ITEM
    assert list(found["0"]) == ["targets", *(f"{name}@{k}" for k in (5, 10) for name in ("ndcg", "hr", "mrr"))]
    assert found["6-50"]["ndcg@5"] == ndcg_at_k(ranks[(events >= 6) & (events <= 50)], 5)
    assert of_all(found, "ndcg@10") == pytest.approx(ndcg_at_k(ranks, 10), rel=1e-14)
    few = segment_metrics(ranks[:3], {"item": np.array([1, 2, 3])}, (10,))["item"]
    assert few["51+"] == {"targets": 0}


def test_both_frameworks_find_the_same_and_all_of_it(run: Path, mixed: Path):
    found = []
    for framework in FRAMEWORKS:
        result = call(framework, "evaluate", "--run", run, "--by", "history,item", "--json")
        assert result.exit_code == 0, result.output
        found.append(json.loads(result.stdout.splitlines()[-1]))
    first, second = (each.pop("by") for each in found)
    for by, segments in first.items():
        for label, segment in segments.items():
            assert second[by][label] == pytest.approx(segment, abs=1e-6), (by, label)
        for name in ("ndcg@5", "hr@10", "mrr@10"):
            assert of_all(segments, name) == pytest.approx(found[0][name], rel=1e-12)

    config = TrainConfig(data=str(mixed), device="cpu")
    _, split = prepare_data(config)
    histories, targets = held_out(config, split, "test")
    assert [each["targets"] for each in first["history"].values()] == _sizes(histories.lengths, (1, 6, 21, 51))
    events = item_counts(split.train, split.num_items)[targets]
    assert [each["targets"] for each in first["item"].values()] == _sizes(events, (0, 1, 6, 51))
    assert first["item"]["0"]["targets"] > 0


def _sizes(numbers: np.ndarray, bounds: tuple[int, ...]) -> list[int]:
    ends = (*bounds[1:], 10**9)
    return [int(((numbers >= low) & (numbers < high)).sum()) for low, high in zip(bounds, ends, strict=True)]


def test_the_terminal_has_a_table_below_what_it_had(run: Path, framework: str):
    plain = call(framework, "evaluate", "--run", run).stdout
    both = call(framework, "evaluate", "--run", run, "--by", "history").stdout
    assert both.startswith(plain)
    lines = both[len(plain) :].strip("\n").splitlines()
    assert lines[0].split() == ["history", "targets", "ndcg@5", "hr@5", "mrr@5", "ndcg@10", "hr@10", "mrr@10"]
    assert [line.split()[0] for line in lines[1:]] == HISTORY
    assert len({len(line) for line in lines}) == 1


@pytest.mark.parametrize("by", ["users", "item,item", ""])
def test_other_segments_are_refused(run: Path, by: str):
    assert error_of(call("torch", "evaluate", "--run", run, "--by", by)).startswith(
        "error: by: expected history, item or both, each once, got"
    )


def test_a_recommender_says_the_same(run: Path, mixed: Path, recommender: type[BaseRecommender]):
    model = recommender.load(run, device="cpu")
    found: dict[str, Any] = model.evaluate(by=("item",))
    segments = found.pop("by")
    assert found == model.evaluate()
    assert list(segments) == ["item"]
    assert of_all(segments["item"], "mrr@5") == pytest.approx(found["mrr@5"], rel=1e-12)
    # of another log, items still count by what the model was trained on
    log, (_, split) = pq.read_table(mixed), prepare_data(TrainConfig(data=str(mixed)))
    newer = log.slice(0, int((np.asarray(log["user_id"]) < 20).sum()))  # of the first 20 users
    of_its_users = item_counts(split.train, split.num_items)[split.test_target[:20]]
    parts = model.evaluate(newer, by=["item"])["by"]["item"].values()
    assert [part["targets"] for part in parts] == _sizes(of_its_users, (0, 1, 6, 51))
    with pytest.raises(ConfigError, match=r"^by: expected history, item or both, each once, got 'item'"):
        model.evaluate(by="item")

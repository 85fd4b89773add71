"""What baselines reach, beside a run's model: by both commands and from Python."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cce_minus.recsys import BASELINES, ConfigError, TrainConfig, baseline_metrics, prepare_data
from cce_minus.recsys.run.experiment import held_out
from cce_minus.recsys.serving.served_run import ServedRun

from tests.training.commands import SMALL, call, error_of


def write_log(path: Path, seed: int, first: int = 1_700_000_000) -> None:
    rng = np.random.default_rng(seed)
    users, items = np.repeat(np.arange(50), 9), np.minimum(rng.geometric(0.08, 450), 40)
    pq.write_table(pa.table({"user_id": users, "item_id": items, "timestamp": first + np.tile(np.arange(9), 50)}), path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from cce_minus.torch_impl.train import train

    folder = tmp_path_factory.mktemp("baselines")
    write_log(folder / "events.parquet", 0)
    config = TrainConfig(**SMALL, data=str(folder / "events.parquet"), out=str(folder / "run"), filter_seen=True)
    train(replace(config, metrics_at="5,10"))
    return Path(config.out)


def expected(run: Path, names: tuple[str, ...], part: str = "test", **changes: Any) -> dict[str, dict[str, float]]:
    config = replace(ServedRun.open(run).config, **changes)
    log, split = prepare_data(config)
    return baseline_metrics(
        names, log, split, *held_out(config, split, part), cutoffs=(5, 10), filter_seen=config.filter_seen
    )


def test_json_has_them_beside_the_model(run: Path, framework: str):
    plain = json.loads(call(framework, "evaluate", "--run", run, "--json").stdout)
    result = call(framework, "evaluate", "--run", run, "--baseline", ",".join(BASELINES), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout.splitlines()[-1])
    assert found.pop("baselines") == expected(run, BASELINES)
    assert found == plain


def test_the_terminal_has_a_table_below_what_it_had(run: Path, framework: str):
    names = ("popularity", "recent:30", "markov")
    plain = call(framework, "evaluate", "--run", run, "--by", "history").stdout
    both = call(framework, "evaluate", "--run", run, "--baseline", ",".join(names), "--by", "history").stdout
    first, of_history = plain.split("\n\n")
    assert both.startswith(first)
    assert both.endswith(of_history)
    lines = both.split("\n\n")[1].splitlines()
    assert lines[0].split() == ["ndcg@5", "hr@5", "mrr@5", "ndcg@10", "hr@10", "mrr@10"]
    assert [line.split()[0] for line in lines[1:]] == ["model", *names]
    assert len({len(line) for line in lines}) == 1
    reached = {name: float(value) for name, value in map(str.split, first.splitlines())}
    assert float(lines[1].split()[4]) == reached["ndcg@10"]
    assert lines[4].split()[1] == f"{expected(run, ('markov',))['markov']['ndcg@5']:.4f}"


def test_options_of_the_evaluation_are_theirs(run: Path):
    from cce_minus.torch_impl import Recommender

    model = Recommender.load(run, device="cpu")
    options = {"part": "valid", "filter_seen": False, "test_users": 20}
    found = model.evaluate(baselines=["itemknn", "popularity"], **options)
    assert found["baselines"] == expected(run, ("itemknn", "popularity"), **options)
    assert "baselines" not in model.evaluate()
    assert json.loads((run / "result.json").read_text())["popularity"] == expected(run, ("popularity",))["popularity"]


def test_on_another_log_they_know_what_the_model_knows(run: Path, tmp_path: Path):
    from cce_minus.torch_impl import Recommender

    write_log(tmp_path / "newer.parquet", 1)
    names, config = ("popularity", "markov"), ServedRun.open(run).config
    known = prepare_data(config)
    _, split = ServedRun.open(run, str(tmp_path / "newer.parquet")).read_data()
    asked = (split.test_history, split.test_target)
    wanted = baseline_metrics(names, *known, *asked, cutoffs=(5, 10), filter_seen=True)
    newer = tmp_path / "newer.parquet"
    assert Recommender.load(run, device="cpu").evaluate(newer, baselines=names)["baselines"] == wanted
    result = call("torch", "evaluate", "--run", run, "--data", newer, "--baseline", ",".join(names), "--json")
    assert json.loads(result.stdout.splitlines()[-1])["baselines"] == wanted


def test_what_cannot_be_measured_is_told(run: Path, monkeypatch: pytest.MonkeyPatch):
    told = error_of(call("torch", "evaluate", "--run", run, "--baseline", "markov,svd"))
    assert (
        "baselines: expected some of popularity, recent, markov, itemknn, vsknn, ials (or recent:DAYS), got 'svd'"
        in told
    )
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "implicit" else found(name, *rest)
    )
    told = error_of(call("torch", "evaluate", "--run", run, "--baseline", "ials"))
    assert "pip install 'cce-minus[baselines]'" in told


def test_a_log_without_times_has_no_recent_days(tmp_path: Path):
    from cce_minus.torch_impl import Recommender

    write_log(tmp_path / "events.parquet", 0, first=0)
    model = Recommender(**SMALL).fit(tmp_path / "events.parquet")
    with pytest.raises(ConfigError, match="recent expected times since 1970"):
        model.evaluate(baselines=["recent"])

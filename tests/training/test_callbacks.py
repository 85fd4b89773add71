"""What a training tells its callbacks, and what they can do about it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cce_minus.recsys import (
    STOP,
    ConfigError,
    EpochEnded,
    RunEnded,
    RunFailed,
    RunStarted,
    TrainConfig,
    read_metrics_log,
)
from cce_minus.recsys.run.events import Event
from cce_minus.recsys.serving.recommender import BaseRecommender
from cce_minus.torch_impl.train import train as train_in_torch

from tests.training.commands import SMALL

Train = Callable[..., Any]
Make = Callable[..., TrainConfig]


class StopsAfter:
    """Stops after an epoch, and writes what it is told into a file, from whichever process."""

    def __init__(self, epoch: int, path: Path) -> None:
        self.epoch, self.path = epoch, path

    def __call__(self, event: Event) -> object:
        with self.path.open("a") as file:
            file.write(f"{type(event).__name__}\n")
        return STOP if isinstance(event, EpochEnded) and event.epoch == self.epoch else None


def fails(event: Event) -> None:
    if isinstance(event, EpochEnded) and event.epoch == 1:
        raise LookupError("no such thing")


def test_events_are_what_the_log_and_the_result_say(train: Train, framework: str, make_config: Make):
    told: list[Any] = []
    config = make_config(eval_every=2, epochs=3, batch_size=0)
    result = train(config, callbacks=[told.append])
    started, *epochs, ended = told
    assert started == RunStarted(started.config, framework, Path(config.out), 0, False)
    assert started.config.batch_size > 0  # resolved
    log = read_metrics_log(Path(config.out) / "metrics.csv")
    rows = [{"epoch": e.epoch, "step": e.step, "train_loss": e.train_loss, **e.metrics} for e in epochs]
    assert rows == [{name: value for name, value in row.items() if name != "seconds"} for row in log]
    assert [round(e.seconds, 3) for e in epochs] == [row["seconds"] for row in log]
    assert [bool(e.metrics) for e in epochs] == [False, True, False]
    assert [e.epoch for e in epochs if e.is_best] == [result.best_epoch]
    assert ended == RunEnded(result)
    with pytest.raises(dataclasses.FrozenInstanceError):
        started.resumed = True

    told.clear()
    train(dataclasses.replace(config, resume=True, epochs=4), callbacks=[told.append])
    assert (told[0].resumed, told[0].first_epoch) == (True, 3)
    assert [e.epoch for e in told[1:-1]] == [3]


def test_a_callback_stops_a_run_which_may_go_on(train: Train, make_config: Make, tmp_path: Path):
    config = make_config(epochs=3)
    result = train(config, callbacks=[StopsAfter(1, tmp_path / "told")])
    assert len(result.losses) == 2
    assert result.test
    assert (tmp_path / "told").read_text().split() == ["RunStarted", "EpochEnded", "EpochEnded", "RunEnded"]
    whole = train(make_config("whole", epochs=3))
    resumed = train(dataclasses.replace(config, resume=True))
    assert resumed.losses == whole.losses


def test_what_a_callback_raises_ends_the_training_and_names_it(train: Train, make_config: Make):
    told: list[Any] = []
    config = make_config(epochs=3)
    with pytest.raises(LookupError, match="no such thing") as caught:
        train(config, callbacks=[told.append, fails])
    assert caught.value.__notes__ == ["in the callback fails, told EpochEnded"]
    assert [type(event) for event in told] == [RunStarted, EpochEnded, EpochEnded, RunFailed]
    assert told[-1].error is caught.value
    assert train(dataclasses.replace(config, resume=True)).best_epoch >= 0  # epochs before it are there

    def at_once(event: object) -> None:
        raise LookupError

    other = make_config("other")
    with pytest.raises(LookupError):
        train(other, callbacks=[at_once])
    assert not Path(other.out).exists()


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [([3], r"^callbacks\[0\]: expected a callable, got 3"), (print, "^callbacks: expected a list of callables")],
)
def test_what_is_no_callback_is_refused(make_config: Make, callbacks: Any, message: str):
    for devices in (1, 2):
        with pytest.raises(ConfigError, match=message):
            train_in_torch(make_config(devices=devices), callbacks=callbacks)


def test_of_several_processes_the_first_one_calls_and_stops_all(make_config: Make, tmp_path: Path):
    told = tmp_path / "told"
    config = make_config(epochs=3, devices=2)
    assert len(train_in_torch(config, callbacks=[StopsAfter(0, told)]).losses) == 1
    assert told.read_text().split() == ["RunStarted", "EpochEnded", "RunEnded"]


def test_processes_refuse_what_cannot_be_sent(make_config: Make):
    with pytest.raises(ConfigError, match=r"^callbacks\[1\]: expected one that can be pickled, as 2 devices"):
        train_in_torch(make_config(devices=2), callbacks=[fails, lambda event: None])


def test_a_recommender_passes_them_on(recommender: type[BaseRecommender], table: Any):
    told: list[Any] = []
    model = recommender(**{**SMALL, "epochs": 1}).fit(table, callbacks=[told.append])
    assert [type(event) for event in told] == [RunStarted, EpochEnded, RunEnded]
    assert told[-1].result == model.result_
    assert told[0].folder == model.run_
    assert json.loads((model.run_ / "config.json").read_text())["log_to"] is None

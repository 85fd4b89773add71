"""What other programs' own readers find of a run that was logged for them."""

from __future__ import annotations

import importlib
import importlib.util
import os
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cce_minus.recsys import ConfigError, TrainConfig, read_metrics_log
from cce_minus.recsys.run.log_choices import parse_loggers
from cce_minus.recsys.serving.recommender import BaseRecommender

from tests.training.commands import SMALL

Train = Callable[..., Any]
Make = Callable[..., TrainConfig]


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


def of_log(config: TrainConfig) -> dict[str, list[float]]:
    """The columns of metrics.csv that loggers are told, by their names there."""
    log = read_metrics_log(Path(config.out) / "metrics.csv")
    return {
        "train_loss": [row["train_loss"] for row in log],
        "valid/ndcg@10": [row["ndcg@10"] for row in log],
    }


def test_tensorboard_reads_a_run_and_what_was_resumed(train: Train, framework: str, make_config: Make):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = make_config(epochs=2, log_to="tensorboard")
    train(config)
    result = train(replace(config, epochs=3, resume=True))
    events = EventAccumulator(str(Path(config.out) / "tensorboard")).Reload()
    for name, values in of_log(config).items():
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [0, 1, 2]
        assert [scalar.value for scalar in scalars] == pytest.approx(values, rel=1e-6)
    assert events.Scalars("test/hr@10")[-1].value == pytest.approx(result.test["hr@10"])
    (text,) = events.Tensors("options")[0].tensor_proto.string_val
    assert f'"framework": "{framework}"' in text.decode()


def test_epochs_that_a_killed_run_trains_again_are_taken_back(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from cce_minus.recsys.run.events import EpochEnded, RunStarted
    from cce_minus.recsys.run.tensorboard_log import TensorBoardLog
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, epochs, loss in ((0, (0, 1, 2), 1.0), (1, (1, 2), 0.5)):
        log = TensorBoardLog()
        log(RunStarted(TrainConfig(out=str(tmp_path)), "torch", tmp_path, first, first > 0))
        for epoch in epochs:
            log(EpochEnded(epoch, epoch, loss, {}, 0.0, False))
        log.fail()
        os.rename(*_newest(tmp_path / "tensorboard", f"events.out.tfevents.{first}"))  # files of one second
    scalars = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("train_loss")
    assert [(scalar.step, scalar.value) for scalar in scalars] == [(0, 1.0), (1, 0.5), (2, 0.5)]


def _newest(folder: Path, name: str) -> tuple[Path, Path]:
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns), folder / name


@pytest.fixture
def mlflow_client() -> Callable[[str], Any]:
    for module in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(module)
    from mlflow import MlflowClient

    return lambda uri: MlflowClient(tracking_uri=uri)


def test_mlflow_reads_a_run_and_what_was_resumed(
    train: Train, framework: str, make_config: Make, mlflow_client: Callable[[str], Any]
):
    config = make_config(epochs=2, log_to="mlflow")
    train(config)
    result = train(replace(config, epochs=3, resume=True))
    client = mlflow_client(f"sqlite:///{config.out}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("cce-minus").experiment_id
    (run,) = client.search_runs([experiment])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert run.data.params["framework"] == framework
    assert run.data.params["dim"] == "16"
    for name, values in of_log(config).items():
        history = client.get_metric_history(run.info.run_id, name.replace("@", "_at_"))
        assert [metric.step for metric in history] == [0, 1, 2]
        assert [metric.value for metric in history] == pytest.approx(values)
    assert run.data.metrics["test/hr_at_10"] == pytest.approx(result.test["hr@10"])


def test_mlflow_is_told_where_and_that_a_run_failed(
    make_config: Make, tmp_path: Path, mlflow_client: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
):
    from cce_minus.torch_impl.train import train

    uri = f"sqlite:///{tmp_path}/elsewhere.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "shop")

    def fails(event: object) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        train(make_config(log_to="mlflow"), callbacks=[fails])
    client = mlflow_client(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("shop").experiment_id])
    assert run.info.status == "FAILED"

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://x")
    with pytest.raises(ConfigError, match=r"^log_to: expected mlflow to take the run, got: "):
        train(make_config("other", log_to="mlflow"))
    assert not (tmp_path / "other").exists()


def records_of(run: Path) -> Iterator[Any]:
    """The records of an offline run of wandb, whose file is a log as LevelDB writes it: a header of 7 bytes, then
    blocks of 32 KiB of (checksum, length, kind) and bytes, where the kinds 1 and 4 end a record."""
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")

    (file,) = (run / "wandb").glob("offline-run-*/run-*.wandb")
    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        _, length, kind = struct.unpack_from("<IHB", data, place)
        if place + 7 + length > len(data):
            return  # half of a record, which is still being written
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield messages.Record.FromString(whole)
            whole = b""


def test_wandb_keeps_a_run_offline(make_config: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    pytest.importorskip("wandb")
    from cce_minus.torch_impl.train import train

    monkeypatch.setenv("HOME", str(tmp_path))
    config = make_config(epochs=2, log_to="wandb")
    result = train(config)
    rows, summary, until = [], {}, time.monotonic() + 30
    # the service of wandb writes in its own time, after the run has finished too
    while "exit" not in [record.WhichOneof("record_type") for record in records_of(Path(config.out))]:
        assert time.monotonic() < until
        time.sleep(0.1)
    for record in records_of(Path(config.out)):
        if record.WhichOneof("record_type") == "history":
            rows.append({item.key or item.nested_key[0]: item.value_json for item in record.history.item})
        if record.WhichOneof("record_type") == "summary":
            summary |= {item.key or item.nested_key[0]: item.value_json for item in record.summary.update}
    assert [float(row["epoch"]) for row in rows] == [0, 1]
    for name, values in of_log(config).items():
        assert [float(row[name]) for row in rows] == pytest.approx(values)
    assert float(summary["test/hr@10"]) == pytest.approx(result.test["hr@10"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("csv", "expected none, or names among tensorboard, mlflow, wandb, got 'csv'"),
        ("", "expected none, or names among tensorboard, mlflow, wandb, got ''"),
        ("mlflow,mlflow", "expected each name once, got mlflow,mlflow"),
    ],
)
def test_other_names_are_refused(names: str, message: str):
    with pytest.raises(ConfigError, match=f"^log_to: {message}"):
        TrainConfig(log_to=names)
    assert parse_loggers("wandb, tensorboard") == ("wandb", "tensorboard")
    assert parse_loggers("none") == parse_loggers(None) == ()


@pytest.mark.parametrize("name", ["tensorboard", "mlflow", "wandb"])
def test_a_missing_package_is_told_before_data_are_read(train: Train, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    message = rf"^log_to: expected the package {name} for {name}, got none installed; pip install 'cce-minus\[tracking"
    with pytest.raises(ConfigError, match=message):
        train(TrainConfig(data="no-such-file.csv", device="cpu", log_to=name))


def test_what_was_logged_is_not_saved_with_a_model(recommender: type[BaseRecommender], table: Any, tmp_path: Path):
    pytest.importorskip("tensorboard")
    model = recommender(**{**SMALL, "epochs": 1}, log_to="tensorboard").fit(table)
    assert (model.run_ / "tensorboard").is_dir()
    model.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "tensorboard").exists()

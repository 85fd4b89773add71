from __future__ import annotations

from pathlib import Path

import pytest
from cce_minus.recsys import ConfigError, DataError, MetricsLog, read_metrics_log

NAMES = ("ndcg@10", "hr@10")


def write_epochs(log: MetricsLog, epochs: range) -> None:
    for epoch in epochs:
        metrics = {"ndcg@10": epoch / 7, "hr@10": epoch / 3} if epoch % 2 else {}
        log.append(epoch=epoch, step=10 * epoch, train_loss=1 / (epoch + 1), metrics=metrics, seconds=0.5)


def test_rows_come_back_exactly(tmp_path: Path):
    path = tmp_path / "run" / "metrics.csv"
    write_epochs(MetricsLog(path, metric_names=NAMES), range(3))
    assert path.read_text().splitlines()[0] == "epoch,step,train_loss,ndcg@10,hr@10,seconds"
    rows = read_metrics_log(path)
    assert rows[0] == {"epoch": 0, "step": 0, "train_loss": 1.0, "seconds": 0.5}
    assert rows[1] == {
        "epoch": 1,
        "step": 10,
        "train_loss": 0.5,
        "ndcg@10": 1 / 7,
        "hr@10": 1 / 3,
        "seconds": 0.5,
    }
    assert rows[2]["train_loss"] == 1 / 3


def test_a_new_run_starts_empty(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    write_epochs(MetricsLog(path, metric_names=NAMES), range(3))
    MetricsLog(path, metric_names=NAMES)
    assert read_metrics_log(path) == []


def test_resume_drops_rows_after_the_checkpoint(tmp_path: Path):
    path, whole = tmp_path / "metrics.csv", tmp_path / "whole.csv"
    write_epochs(MetricsLog(path, metric_names=NAMES), range(5))
    write_epochs(MetricsLog(path, metric_names=NAMES, resume_after=2), range(3, 6))
    write_epochs(MetricsLog(whole, metric_names=NAMES), range(6))
    assert path.read_text() == whole.read_text()


def test_resume_survives_a_line_cut_by_a_kill(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    write_epochs(MetricsLog(path, metric_names=NAMES), range(3))
    with path.open("a") as file:
        file.write("3,30,0.2")
    MetricsLog(path, metric_names=NAMES, resume_after=9)
    assert [row["epoch"] for row in read_metrics_log(path)] == [0, 1, 2]


@pytest.mark.parametrize("content", [None, ""])
def test_resume_without_a_log_starts_one(tmp_path: Path, content: str | None):
    path = tmp_path / "metrics.csv"
    if content is not None:
        path.write_text(content)
    write_epochs(MetricsLog(path, metric_names=NAMES, resume_after=4), range(5, 6))
    assert [row["epoch"] for row in read_metrics_log(path)] == [5]


def test_a_log_of_other_columns_is_refused(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    MetricsLog(path, metric_names=("hr@5",))
    with pytest.raises(DataError, match=r"metrics\.csv: expected the columns .*ndcg@10.*got .*hr@5"):
        MetricsLog(path, metric_names=NAMES, resume_after=0)


def test_an_unknown_metric_is_refused(tmp_path: Path):
    log = MetricsLog(tmp_path / "metrics.csv", metric_names=NAMES)
    with pytest.raises(ConfigError, match="mrr@10"):
        log.append(epoch=0, step=0, train_loss=1.0, metrics={"mrr@10": 0.1}, seconds=1.0)

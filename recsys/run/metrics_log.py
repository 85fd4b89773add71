"""Append-only CSV log of a training run, one row an epoch."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import ConfigError, DataError
from ..files import replacing

_BEFORE = ("epoch", "step", "train_loss")
_AFTER = ("seconds",)


class MetricsLog:
    """CSV file with the columns epoch, step, train_loss, one for each validation metric, and seconds.

    ``resume_after`` None starts a new file; a number keeps the rows of epochs up to it and drops later ones, which
    belong to work that a killed run did after its last checkpoint. A missing file then starts new. Raises `DataError`
    if the file to continue has other columns.
    """

    def __init__(self, path: str | Path, *, metric_names: Sequence[str], resume_after: int | None = None) -> None:
        self.path = Path(path)
        self.columns = (*_BEFORE, *metric_names, *_AFTER)
        self._metric_names = tuple(metric_names)
        kept: list[dict[str, str]] = []
        if resume_after is not None and self.path.exists():
            kept = [row for row in self._read_rows() if int(row["epoch"]) <= resume_after]
        self._rewrite(kept)

    def append(self, *, epoch: int, step: int, train_loss: float, metrics: Mapping[str, float], seconds: float) -> None:
        """Write one row to disk; ``metrics`` is empty for an epoch without validation."""
        unknown = sorted(set(metrics) - set(self._metric_names))
        if unknown:
            raise ConfigError(f"metrics: expected names among {self._metric_names}, got {unknown[0]!r}")
        row = {
            "epoch": epoch,
            "step": step,
            "train_loss": train_loss,
            **metrics,
            "seconds": round(seconds, 3),
        }
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns, restval="", lineterminator="\n").writerow(row)

    def _read_rows(self) -> list[dict[str, str]]:
        try:
            lines = _whole_lines(self.path)
            header, *rows = csv.reader(lines) if lines else [list(self.columns)]
            records = [dict(zip(header, row, strict=True)) for row in rows if int(row[0]) >= 0]
        except (OSError, ValueError, IndexError, csv.Error) as error:
            raise DataError(f"{self.path}: cannot be read as the log of a run ({error})") from error
        if tuple(header) != self.columns:
            raise DataError(f"{self.path}: expected the columns {', '.join(self.columns)}, got {', '.join(header)}")
        return records

    def _rewrite(self, rows: Sequence[Mapping[str, str]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(self.path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _whole_lines(path: Path) -> list[str]:
    """A kill, or a run that goes on, may leave half a line; only lines that end are rows."""
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()


def read_metrics_log(path: str | Path) -> list[dict[str, float]]:
    """Rows of a log as numbers, of a run that still writes it too; metrics that an epoch did not measure are left out
    of its row. Raises `DataError`."""
    try:
        rows = csv.DictReader(_whole_lines(Path(path)))
        return [{key: float(value) for key, value in row.items() if value} for row in rows]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as the log of a run ({error})") from error

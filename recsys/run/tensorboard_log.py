"""TensorBoard's log of a run."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Mapping
from typing import Any

from .events import EpochEnded, RunStarted
from .progress import TrainResult
from .tracked_run import TrackedRun, options_of


class TensorBoardLog(TrackedRun):
    """Event files in the run's folder ``tensorboard``: a scalar for each number, the epoch as its step, and the options
    as a text. A resumed run begins a file that takes back the epochs which it trains again."""

    name = "tensorboard"

    def __init__(self) -> None:
        self._writer: Any = None

    def start(self, event: RunStarted) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(event.folder / "tensorboard"))
        if event.resumed:
            SessionLog = _messages("event").SessionLog
            self._add(event.first_epoch, session_log=SessionLog(status=SessionLog.START))
        self._add(event.first_epoch, summary=_text("options", json.dumps(options_of(event), indent=2)))
        self._writer.flush()

    def log(self, values: Mapping[str, float], event: EpochEnded) -> None:
        self._scalars(values, event.epoch)
        self._writer.flush()

    def end(self, result: TrainResult, values: Mapping[str, float]) -> None:
        self._scalars(values, result.best_epoch)
        self._writer.close()

    def fail(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _scalars(self, values: Mapping[str, float], epoch: int) -> None:
        Summary = _messages("summary").Summary
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(epoch, summary=Summary(value=scalars))

    def _add(self, step: int, **content: Any) -> None:
        self._writer.add_event(_messages("event").Event(wall_time=time.time(), step=step, **content))


def _messages(name: str) -> Any:
    """A module of TensorBoard's messages, whose classes are made as it is imported."""
    return importlib.import_module(f"tensorboard.compat.proto.{name}_pb2")


def _text(tag: str, text: str) -> Any:
    """A summary that TensorBoard shows as a block of text."""
    Summary, SummaryMetadata = _messages("summary").Summary, _messages("summary").SummaryMetadata
    TensorShapeProto = _messages("tensor_shape").TensorShapeProto
    block = "\n".join(f"    {line}" for line in text.splitlines())  # of Markdown
    tensor = _messages("tensor").TensorProto(
        dtype="DT_STRING",
        string_val=[block.encode()],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])

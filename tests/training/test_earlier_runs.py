"""Runs that version 0.1 began, with checkpoints of Lightning and Orbax, go on as they would have."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cce_minus.recsys import ConfigError, TrainConfig
from cce_minus.recsys.run.checkpoint_file import NAME, read_checkpoint
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.run.progress import Progress
from cce_minus.torch_impl.models import build_model
from safetensors.numpy import load_file

Train = Callable[[TrainConfig], Any]
Make = Callable[..., TrainConfig]
Arrays = dict[str, np.ndarray]

LATER = (
    "accumulate",
    "optimizer",
    "schedule",
    "momentum",
    "clip_norm",
    "ema_decay",
    "data_on",
    "deterministic",
    "profile",
)


def write_lightning(folder: Path, arrays: Arrays, progress: Progress, items: int, config: TrainConfig) -> None:
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    model = build_model(ModelConfig.from_train(config, items))
    moments = {
        number: {key: tensors[f"optimizer/{key}/{name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
        for number, (name, _) in enumerate(model.named_parameters())
    }
    state = {name.replace("model/", "model."): t for name, t in tensors.items() if not name.startswith("optimizer/")}
    found = {
        "state_dict": state,
        "optimizer_states": [{"state": moments}],
        "callbacks": {"EpochRecorder": asdict(progress)},
    }
    torch.save(found, folder / "last.ckpt")


def write_orbax(folder: Path, arrays: Arrays, progress: Progress) -> None:
    ocp = pytest.importorskip("orbax.checkpoint")
    tree: dict[str, Any] = {"1": {"step": {"value": np.zeros((), np.uint32)}}}
    places = (("parameters/", "0/"), ("optimizer/0/", "1/opt_state/0/"), ("frequencies", "2/values"))
    for name, array in arrays.items():
        (place,) = [was + name.removeprefix(now) for now, was in places if name.startswith(now)]
        node = tree
        for part in place.split("/"):
            node = node.setdefault(part, {})
        node["value"] = array
    path = folder / str(progress.epochs)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path / "state", tree)
    (path / "progress").mkdir()
    (path / "progress" / "metadata").write_text(json.dumps(asdict(progress)))


def test_runs_of_version_0_1_are_resumed(train: Train, framework: str, make_config: Make):
    options: dict[str, Any] = {"negatives": "mixed", "frequency_rate": 0.2}
    whole = train(make_config("whole", epochs=3, **options))
    config = make_config("parts", epochs=2, **options)
    train(config)
    folder = Path(config.out) / f"{framework}-checkpoints"
    tensors, progress = read_checkpoint(folder / NAME)
    arrays = {name: tensor.array() for name, tensor in tensors.items()}
    (folder / NAME).unlink()
    if framework == "torch":
        write_lightning(folder, arrays, progress, len(arrays["model/item_table"]), config)
    else:
        write_orbax(folder, arrays, progress)
    saved = Path(config.out) / "config.json"
    written = json.loads(saved.read_text())
    assert set(LATER) < {field.name for field in fields(TrainConfig)}
    saved.write_text(json.dumps({name: value for name, value in written.items() if name not in (*LATER, "schema")}))
    resumed = train(replace(config, epochs=3, resume=True))
    assert resumed.losses == whole.losses
    expected = load_file(whole.weights)
    for name, tensor in load_file(resumed.weights).items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)


def test_a_damaged_one_is_named(train: Train, framework: str, make_config: Make):
    config = make_config(epochs=1)
    train(config)
    folder = Path(config.out) / f"{framework}-checkpoints"
    (folder / NAME).unlink()
    if framework == "torch":
        (folder / "last.ckpt").write_bytes(b"PK nothing")
    else:
        (folder / "1" / "state").mkdir(parents=True)
    with pytest.raises(ConfigError, match="resume: expected a checkpoint that can be read, got"):
        train(replace(config, epochs=2, resume=True))

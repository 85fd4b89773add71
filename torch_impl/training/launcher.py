"""The launcher of a run: Lightning Fabric's, on one device."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from ...recsys import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_PRECISION = {"fp32": "32-true", "bf16": "bf16-mixed"}


def fabric_of(config: TrainConfig, device: torch.device) -> Fabric:
    """The launcher of a run on one ``device``, in its precision, launched."""
    # here, because importing it takes seconds, in which a run reads its log
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    log = logging.getLogger("lightning_fabric")
    level = log.level
    log.setLevel(logging.WARNING)  # its notes on the machine and on the precision are no news here
    try:
        fabric = Fabric(
            accelerator="cuda" if device.type == "cuda" else "cpu",
            devices=[device.index or 0] if device.type == "cuda" else 1,
            precision=_PRECISION[config.precision],  # pyright: ignore[reportArgumentType]
            # one process, whatever started it: looking for others would import MPI where it is installed
            plugins=LightningEnvironment(),
        )
        fabric.launch()
    finally:
        log.setLevel(level)
    return fabric

"""The sequence models by name."""

from __future__ import annotations

from ...kernels.draws.shard import Shard
from ...recsys.run.model_config import ModelConfig
from .bert4rec import BERT4Rec
from .ligr import LiGR
from .sasrec import SASRec
from .sequence_model import SequenceModel

MODELS: dict[str, type[SequenceModel]] = {model.name: model for model in (SASRec, BERT4Rec, LiGR)}


def build_model(config: ModelConfig, *, host_table: bool = False, shard: Shard | None = None) -> SequenceModel:
    """Returns the model that ``config.model`` names, initialised from torch's own generator; with ``host_table`` its
    item table is in the host's memory, with a ``shard`` it has its items alone."""
    return MODELS[config.model](config, host_table=host_table, shard=shard)

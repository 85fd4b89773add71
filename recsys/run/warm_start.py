"""A new run's start from an earlier one: its weights, and the state of its optimizer, by the items' labels."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..data.catalog import Catalog
from ..data.interactions import Interactions
from ..data.ragged import Ragged
from ..errors import ConfigError
from ..files import usable
from .checkpoint_file import NAME, read_checkpoint
from .config import TrainConfig
from .feature_choices import parse_columns
from .feature_columns import column_places, read_columns
from .item_optimizer import item_rule
from .mapped_rows import MappedRows, last_rows, mapped_rows
from .model_config import ModelConfig
from .neighbours import Neighbours
from .run_directory import NAMES, RunDirectory
from .side_information import SideInformation
from .tensor_file import Stored
from .weights_file import ITEM_FEATURES, ITEM_TABLE, read_config, read_tensors, read_weights

logger = logging.getLogger(__name__)

_SAME = ("model", "dim", "num_blocks", "num_heads")  # of the model; positions are counted from a history's end
_SAME_FEATURES = ("numeric_as", "numeric_bins", "item_vectors_dim")
_SAME_COLUMNS = ("feature_columns", "numeric_columns")
_SAME_PARTS = ("split", "split_quantile", "valid_fraction", "min_rating", "min_item_events", "min_user_events")

POSITION_TABLE, FEATURE_PROJECTION = "position_table", "feature_projection"

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class EarlierRun:
    """The run, of either framework, that ``from_run`` names."""

    files: RunDirectory
    config: TrainConfig
    model: ModelConfig

    @classmethod
    def of(cls, config: TrainConfig, run: RunDirectory) -> EarlierRun | None:
        """The one that the new ``run`` starts from, looked at before any data are read; None where it starts from none,
        or goes on from a checkpoint of its own.

        Raises ``ConfigError`` for a folder without a run's weights, and for options that make another model.
        """
        if config.from_run is None or _goes_on(config, run):
            return None
        files = RunDirectory.of(config.from_run)
        with usable("from_run", "the folder of a training run"):
            for file in (files.config, files.catalog, files.best_weights):
                if not file.is_file():
                    raise ConfigError(
                        f"from_run: expected the folder of a training run with its weights, got {config.from_run} "
                        f"without {file.name}"
                    )
        earlier = cls(files, TrainConfig.read(files.config), read_config(files.best_weights))
        for name in _SAME:
            earlier._require(name, getattr(earlier.model, name), getattr(config, name))
        had, has = _sides(earlier.config), _sides(config)
        for name in had:
            earlier._require(name, had[name], has[name])
        for name in _SAME_FEATURES:
            earlier._require(name, getattr(earlier.config, name), getattr(config, name))
        for name in _SAME_COLUMNS:
            expected, got = (parse_columns(name, getattr(each, name)) for each in (earlier.config, config))
            earlier._require(name, ",".join(sorted(expected)), ",".join(sorted(got)))
        if earlier.model.num_features and not files.feature_columns.exists():
            raise ConfigError(
                f"from_run: expected {files.feature_columns.name} in {config.from_run}, which a run of an earlier "
                "version writes when it is resumed"
            )
        earlier._tell_what_it_has_seen(config)
        return earlier

    def _tell_what_it_has_seen(self, config: TrainConfig) -> None:
        """Logs that a part is no measure where the earlier run may have trained on it."""
        parts = {
            "validation": config.has_validation and not self.config.has_validation,
            "test": config.has_test and not self.config.has_test,
        }
        if seen := " and ".join(part for part, is_seen in parts.items() if is_seen):
            logger.warning(
                "from %s: this run's %s may be among what that run, with %s, was trained on, and its metrics too good",
                self.files.path,
                seen,
                f"split = {self.config.split}" if not self.config.has_test else "train_on_valid",
            )
        others = [name for name in _SAME_PARTS if getattr(self.config, name) != getattr(config, name)]
        if others and config.has_test and not seen:
            logger.warning(
                "from %s: that run held out other events (%s), and was trained on some of this run's validation and "
                "test: its metrics may be too good",
                self.files.path, ", ".join(others),
            )  # fmt: skip

    def _require(self, name: str, expected: object, got: object) -> None:
        if got != expected:
            raise ConfigError(f"{name}: expected {expected} as in the run of from_run, {self.files.path}, got {got}")

    def start(self, config: TrainConfig, interactions: Interactions, train: Ragged, side: SideInformation) -> WarmStart:
        """What a run of ``config`` starts from, which is trained on the rows of ``train`` alone.

        Logs how many items are known. Raises ``ConfigError`` where none is, where the weights are of other items than
        the folder's, and for features as `column_places` does.
        """
        earlier, catalog = Catalog.read(self.files.catalog), Catalog.of(interactions)
        if self.model.num_items != len(earlier):
            raise ConfigError(
                f"from_run: expected weights of the {len(earlier)} items of {self.files.catalog}, got weights of "
                f"{self.model.num_items}"
            )
        places = catalog.places_of(earlier)
        if not (places >= 0).any():
            raise ConfigError(
                f"from_run: expected a run with some of the {len(catalog)} items of {interactions.source}, got none in "
                f"{self.files.catalog}"
            )
        columns = np.zeros(0, np.int32)
        if self.model.num_features:
            features = read_tensors(self.files.best_weights)[ITEM_FEATURES].array()
            names = read_columns(self.files.feature_columns)
            if len(set(names)) != self.model.num_features or len(names) != self.model.num_features:
                raise ConfigError(
                    f"from_run: expected {self.model.num_features} different names in {self.files.feature_columns}, "
                    f"got {len(set(names))}"
                )
            columns = column_places(names, features, places, side)
        start = WarmStart(self, config, places, len(catalog), train, columns, side.num_features, _has_vector(side))
        logger.info("from %s: %s", self.files.path, start.told())
        return start


@dataclass(frozen=True, eq=False)
class WarmStart:
    """``places`` (V',) int32 are the new items of the ``earlier`` run's, -1 for those that are gone, of ``num_items``
    V; ``train`` are the rows of items that are trained on; ``columns`` (P',) likewise of its features', of
    ``num_features`` P. Items in ``has_vector`` (V,) have rows to start from beside it."""

    earlier: EarlierRun
    config: TrainConfig
    places: npt.NDArray[np.int32]
    num_items: int
    train: Ragged
    columns: npt.NDArray[np.int32]
    num_features: int
    has_vector: npt.NDArray[np.bool_] | None

    @cached_property
    def _is_new(self) -> npt.NDArray[np.bool_]:
        is_new = np.ones(self.num_items, np.bool_)
        is_new[self.places[self.places >= 0]] = False
        return is_new

    @cached_property
    def _without_row(self) -> npt.NDArray[np.int32]:
        """The new items that have no vector."""
        is_started = np.zeros(self.num_items, np.bool_) if self.has_vector is None else self.has_vector
        return np.flatnonzero(self._is_new & ~is_started).astype(np.int32)

    @cached_property
    def _neighbours(self) -> Neighbours:
        return Neighbours.of(self.train, self.places, self._without_row)

    def told(self) -> str:
        """How many items are known, gone, new, and of these with neighbours."""
        known, new = int((self.places >= 0).sum()), int(self._is_new.sum())
        columns = f"; {(self.columns >= 0).sum()} of {len(self.columns)} columns of features go on"
        told = f"{known:,} of {self.num_items:,} items are known, {len(self.places) - known:,} dropped, {new:,} new"
        told += f", of which {len(self._neighbours.items):,} start from their neighbours" if new else ""
        return told + (columns if len(self.columns) else "")

    def weights(self, shapes: Shapes) -> dict[str, Stored | MappedRows]:
        """What the parameters of these ``shapes`` start as, by name, the item features left out.

        Rows of known items are the earlier run's. New ones that have no vector are made of their neighbours' in
        ``train`` (`NeighbourRows`), or are the mean of all where they have none. Positions are counted from a history's
        end: the latest are the earlier run's, and any before them are as the earliest of these. Columns of features are
        found by their names; new ones stay as they are. Raises ``WeightsError`` as `read_weights` does.
        """
        model = self.earlier.model
        first = {
            ITEM_TABLE: model.num_items, ITEM_FEATURES: model.num_items, POSITION_TABLE: model.max_length,
            FEATURE_PROJECTION: model.num_features,
        }  # fmt: skip
        before = {name: (first.get(name, shape[0]), *shape[1:]) for name, shape in shapes.items()}
        if ITEM_FEATURES in shapes:
            before[ITEM_FEATURES] = model.num_items, model.num_features
        found = dict(read_weights(self.earlier.files.best_weights, model, before))
        found.pop(ITEM_FEATURES, None)
        return {name: self._moved(name, tensor, shapes[name], is_weight=True) for name, tensor in found.items()}

    def _moved(self, parameter: str, source: Stored, shape: tuple[int, ...], *, is_weight: bool) -> Stored | MappedRows:
        """What is the earlier run's of a ``parameter``, or of a state of its shape or its rows, where it is in this
        one's of ``shape``."""
        nothing = np.zeros(0, np.int32)
        if not shape or source.shape[1:] != shape[1:]:
            return source
        sizes = source.shape[:1], shape[:1]
        if parameter == ITEM_TABLE and sizes == ((len(self.places),), (self.num_items,)):
            if is_weight:
                return mapped_rows(source, self.places, self._without_row, self._neighbours)
            return mapped_rows(source, self.places, nothing)
        if parameter == FEATURE_PROJECTION and sizes == ((len(self.columns),), (self.num_features,)):
            return mapped_rows(source, self.columns, nothing)
        if parameter == POSITION_TABLE and sizes == ((self.earlier.model.max_length,), (self.config.max_length,)):
            return last_rows(source, shape[0], repeat=is_weight)
        return source

    def optimizer_state(
        self, framework: str, shapes: Shapes, parameters: Mapping[str, str]
    ) -> dict[str, Stored | MappedRows]:
        """What the optimizer's state of these ``shapes``, which is zeros, starts as, by the names of a checkpoint;
        ``parameters`` are those that each is of.

        States with rows of the item table, the positions or the features' projection move with these; the others are
        taken as they are. Empty where the earlier run's does not fit, which is logged with the reason.
        """
        try:
            state = self._optimizer_state(framework, shapes, parameters)
        except _OtherStateError as reason:
            logger.info("from %s: the optimizer starts anew, as %s", self.earlier.files.path, reason)
            return {}
        logger.info("from %s: the optimizer goes on from its state", self.earlier.files.path)
        return state

    def _optimizer_state(
        self, framework: str, shapes: Shapes, parameters: Mapping[str, str]
    ) -> dict[str, Stored | MappedRows]:
        files, config = self.earlier.files, self.earlier.config
        path = replace(files, framework=framework).checkpoints / NAME
        if not path.exists():
            others = [name for name in NAMES if (replace(files, framework=name).checkpoints / NAME).exists()]
            raise _OtherStateError(f"it is a run of {NAMES[others[0]]}" if others else "it has no last checkpoint")
        rules = item_rule(config, self.earlier.model.num_items), item_rule(self.config, self.num_items)
        for name, had, has in (("optimizer", config.optimizer, self.config.optimizer), ("item_optimizer", *rules)):
            if had != has:
                raise _OtherStateError(f"{name} was {had or config.optimizer} and is {has or self.config.optimizer}")
        found = {_bare(name): tensor for name, tensor in read_checkpoint(path, "from_run")[0].items()}
        state: dict[str, Stored | MappedRows] = {}
        for name, shape in shapes.items():
            source = found.get(_bare(name))
            if source is None:
                raise _OtherStateError(f"it has no {name}")
            state[name] = self._moved(parameters[name], source, shape, is_weight=False)
            if state[name] is source and source.shape != shape:
                raise _OtherStateError(f"its {name} has the shape {source.shape} and is to have {shape}")
        return state


class _OtherStateError(Exception):
    """Why an optimizer's state does not fit."""


def _bare(name: str) -> str:
    """The name without the state's number in a chain, in which clipping takes a place."""
    return re.sub(r"^optimizer/\d+/", "optimizer/", name)


def _sides(config: TrainConfig) -> dict[str, str]:
    """Whether the model has features from a file of features and from one of vectors, by the option."""
    as_features = config.item_vectors is not None and config.item_vectors_as == "features"
    sides = {"item_features": config.item_features is not None, "item_vectors": as_features}
    return {name: "features" if has else "no features" for name, has in sides.items()}


def _has_vector(side: SideInformation) -> npt.NDArray[np.bool_] | None:
    return None if side.initial is None else np.asarray(side.initial.any(axis=1))


def _goes_on(config: TrainConfig, run: RunDirectory) -> bool:
    """Whether the ``run`` has a checkpoint to go on from, so that what it started from says nothing any more."""
    return config.resume and (run.checkpoints / NAME).exists()


def require_same_items(config: TrainConfig, run: RunDirectory, interactions: Interactions) -> None:
    """Raises ``ConfigError`` where the ``init_weights`` of the ``run`` lie beside the catalog of other items than the
    data's, whose rows they would meet by their places."""
    if config.init_weights is None or _goes_on(config, run):
        return
    path = RunDirectory.of(config.init_weights).path.parent / "catalog.parquet"
    if path.exists() and not Catalog.of(interactions).same_items(Catalog.read(path)):
        raise ConfigError(
            f"init_weights: expected weights of the {interactions.num_items} items of {interactions.source}, got those "
            f"of {path}; from_run (--from {path.parent}) finds items by their ids"
        )

"""Items without events in the catalog."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cce_minus.recsys import DataError, TrainConfig, prepare_data
from cce_minus.recsys.data.catalog import Catalog

EVENTS = [f"{user},{2 * (user + step)},{step}" for user in range(6) for step in range(4)]


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    (tmp_path / "events.csv").write_text("\n".join(["user_id,item_id,timestamp", *EVENTS]))
    return TrainConfig(data=str(tmp_path / "events.csv"), out=str(tmp_path / "run"))


def with_file(config: TrainConfig, lines: str, titles: str | None = None) -> TrainConfig:
    path = Path(config.data).with_name("items.csv")
    path.write_text(lines)
    return TrainConfig(data=config.data, out=config.out, items=str(path), titles=titles)


def test_a_files_items_are_in_the_catalog(config: TrainConfig):
    own, _ = prepare_data(config)
    both, split = prepare_data(with_file(config, "item_id\n3\n100\n4\n3\n"))
    assert own.item_labels.tolist() == list(range(0, 18, 2))
    assert both.item_labels.tolist() == sorted({*range(0, 18, 2), 3, 100})
    np.testing.assert_array_equal(both.item_labels[both.item], own.item_labels[own.item])
    assert split.num_items == both.num_items == 11


def test_ids_of_another_type_are_text(config: TrainConfig):
    both, _ = prepare_data(with_file(config, "item_id\nx\n4\n007\n"))
    assert both.item_labels.tolist() == sorted([*map(str, range(0, 18, 2)), "x", "007"])


def test_titles_are_of_all_items(config: TrainConfig):
    titles = Path(config.data).with_name("titles.csv")
    titles.write_text("item_id,title\n3,three\n4,four\n")
    both, _ = prepare_data(with_file(config, "item_id\n3\n5\n", titles=str(titles)))
    catalog = Catalog.of(both)
    assert catalog.names(catalog.ids([3, 4, 5, 6])) == ["three", "four", "5", "6"]


def test_what_is_no_file_of_items_is_named(config: TrainConfig):
    with pytest.raises(DataError, match=r"items\.csv: .*item_id"):
        prepare_data(with_file(config, "id\n3\n"))
    with pytest.raises(DataError, match=r"items\.csv"):
        prepare_data(with_file(config, 'item_id\n3\n""\n'))

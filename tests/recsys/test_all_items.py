"""Items without events in the catalog."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cce_minus.recsys import DataError, Interactions, TrainConfig, prepare_data
from cce_minus.recsys.data.all_items import with_catalog
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


def test_a_catalogs_items_keep_their_titles():
    events = Interactions(
        np.zeros(2, np.int32), np.array([0, 1], np.int32), np.arange(2), np.array([0]), np.array([3, 7]), ["c", "g"]
    )
    joined = with_catalog(events, Catalog(np.array(["5", "7"], object), ["e", "old"]))
    assert joined.item_labels.tolist() == ["3", "5", "7"]
    assert joined.item_titles == ["c", "e", "g"]
    assert joined.item.tolist() == [0, 2]
    assert with_catalog(events, Catalog(np.array([5]))).item_titles == ["c", "5", "g"]


@pytest.mark.parametrize("kinds", ["ii", "it", "ti", "tt"])
def test_places_of_another_catalog(kinds: str):
    ours, theirs = ([3, 7, 10, 12], [10, 5, 3, 99])
    catalogs = [
        Catalog(np.array(labels) if kind == "i" else np.array(sorted(map(str, labels)), object))
        for kind, labels in zip(kinds, (ours, theirs), strict=True)
    ]
    found = catalogs[0].places_of(catalogs[1])
    texts = [[str(label) for label in catalog.labels.tolist()] for catalog in catalogs]
    assert found.tolist() == [texts[0].index(each) if each in texts[0] else -1 for each in texts[1]]
    assert not catalogs[0].same_items(catalogs[1])
    assert catalogs[0].same_items(catalogs[0])
    assert not catalogs[0].same_items(Catalog(catalogs[0].labels[:3]))

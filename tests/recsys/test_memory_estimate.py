"""What a run will take of a device's memory."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from cce_minus.recsys import ConfigError, TrainConfig
from cce_minus.recsys.run import memory_estimate
from cce_minus.recsys.run.memory_estimate import GIB, estimate, host_bytes, host_memory, require_memory

CONFIG = TrainConfig(data="x", dim=64, max_length=50, batch_size=512, num_negatives=1024)
MANY = 100_000_000


def test_a_dense_step_holds_the_table_and_its_gradients_and_moments():
    parts = estimate(CONFIG, 10**6, None)
    table = 4 * 64 * 10**6
    assert parts["item table"] == table
    assert (parts["its gradient"], parts["its optimizer"], parts["its average"]) == (2 * table, 2 * table, 0)
    assert estimate(replace(CONFIG, optimizer="sgd", ema_decay=0.9), 10**6, None)["its average"] == table


def test_moving_rows_alone_takes_what_the_rule_keeps():
    table = 4 * 64 * MANY
    kept = {"rowwise_adagrad": 4 * MANY, "partial_rowwise_adam": table + 4 * MANY, "lazy_adam": 2 * table}
    for rule, expected in kept.items():
        parts = estimate(CONFIG, MANY, rule)
        assert parts["its optimizer"] == expected
        assert parts["its gradient"] < GIB


def test_a_run_says_what_it_takes(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    require_memory(CONFIG, 1000, 16 * GIB, lends_host=True)
    (told,) = caplog.messages
    assert told.startswith("memory: about 0.1 GiB (a batch 0.1) of the device's 16.0 GiB")
    caplog.clear()
    require_memory(replace(CONFIG, item_optimizer="rowwise-adagrad"), MANY, 80 * GIB, lends_host=True)
    (told,) = caplog.messages
    assert told.startswith("memory: about 2")
    assert "item table 23.8, its gradient 0.1, its optimizer 0.4" in told


def test_a_cpu_has_the_memory_of_its_machine():
    found = host_memory()
    assert GIB < found < 2**63
    too_many = found // (4 * CONFIG.dim)
    with pytest.raises(ConfigError, match=rf"^memory: expected at most the device's {found / GIB:.1f} GiB, got about"):
        require_memory(replace(CONFIG, item_optimizer="rowwise-adagrad"), too_many, 2**63, lends_host=True, on_cpu=True)


def test_a_device_of_unknown_memory_is_held_to_none(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    require_memory(replace(CONFIG, item_optimizer="rowwise-adagrad"), MANY, 2**63, lends_host=True)
    assert caplog.messages[-1].endswith(")")


def test_a_table_that_the_host_does_not_hold_is_refused():
    config = replace(CONFIG, item_optimizer="rowwise-adagrad", table_on="host")
    too_many = host_memory() // (4 * CONFIG.dim) + 10**6
    for on_cpu in (False, True):
        with pytest.raises(ConfigError, match=rf"^memory: expected at most the host's {host_memory() / GIB:.1f} GiB"):
            require_memory(config, too_many, 2**63, lends_host=True, on_cpu=on_cpu)


def rows_of_the_page() -> list[str]:
    """What docs/large_catalogs.md says fits: GiB by items, width and how the table moves."""
    rows = []
    for num_items in (10**6, 2 * 10**6, 10**7, 10**8):
        for dim in (64, 128):
            config = replace(CONFIG, dim=dim, batch_size=128, max_length=200)
            cells = [
                sum(estimate(replace(config, **options), num_items, rule).values()) / GIB
                for rule, options in (
                    (None, {}), ("lazy_adam", {}), ("partial_rowwise_adam", {}), ("rowwise_adagrad", {}),
                    ("rowwise_adagrad", {"table_dtype": "bf16"}),
                )
            ]  # fmt: skip
            rows.append(f"| {num_items // 10**6}M | {dim} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    return rows


def test_the_page_says_what_fits():
    page = (Path(__file__).parents[2] / "docs" / "large_catalogs.md").read_text()
    assert "\n".join(rows_of_the_page()) in page


def test_what_does_not_fit_is_refused_with_what_would():
    with pytest.raises(
        ConfigError,
        match=r"memory: expected at most the device's 80.0 GiB, got about 119.* GiB \(item table 23.8, its gradient "
        r"47.7, its optimizer 47.7.*\); item_optimizer = rowwise-adagrad takes 2.*, item_optimizer = "
        r"partial-rowwise-adam takes 4.*, item_optimizer = lazy-adam takes 7",
    ):
        require_memory(replace(CONFIG, item_optimizer="adamw"), MANY, 80 * GIB, lends_host=True)
    with pytest.raises(ConfigError, match=r"got about 119.\d GiB .*; a smaller dim or batch_size takes less"):
        require_memory(replace(CONFIG, negatives="all", num_negatives=0), MANY, 80 * GIB, lends_host=True)


def test_a_table_in_the_hosts_memory_leaves_the_device_its_rows(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(memory_estimate, "host_memory", lambda: 512 * GIB)
    table, options = 2 * 64 * MANY, {"table_on": "host", "table_dtype": "bf16"}
    for name, rule, moments in (
        ("rowwise-adagrad", "rowwise_adagrad", 0),
        ("partial-rowwise-adam", "partial_rowwise_adam", 1),
        ("lazy-adam", "lazy_adam", 2),
    ):
        config = replace(CONFIG, item_optimizer=name, **options)
        parts = estimate(config, MANY, rule)
        assert (parts["item table"], parts["its optimizer"]) == (0, 0 if rule == "lazy_adam" else 4 * MANY)
        assert parts["its gradient"] == 2.5 * estimate(replace(config, table_on="device"), MANY, rule)["its gradient"]
        assert host_bytes(config, MANY, rule) == table + moments * 2 * table
    caplog.set_level(logging.INFO)
    require_memory(config, MANY, 80 * GIB, lends_host=True)
    assert caplog.messages[-1] == "the host's memory: about 59.6 GiB"
    with pytest.raises(ConfigError, match=r"table_on: expected device with JAX and on several devices, .*, got host"):
        require_memory(config, MANY, 80 * GIB, lends_host=False)


def test_a_table_in_the_hosts_memory_is_what_fits():
    config = replace(CONFIG, item_optimizer="partial-rowwise-adam")
    many = 4 * MANY
    advice = r"table_on = host with item_optimizer = partial-rowwise-adam takes \d.*, and of the host's memory 190.7$"
    with pytest.raises(ConfigError, match=advice):
        require_memory(config, many, 80 * GIB, lends_host=True)
    with pytest.raises(ConfigError, match="a smaller dim or batch_size takes less"):
        require_memory(config, many, 80 * GIB, lends_host=False)


def test_features_count_with_the_rows_that_they_make():
    rows, features = 4 * 64 * MANY, 4 * 10 * MANY
    assert estimate(CONFIG, MANY, None)["item features"] == 0
    assert estimate(CONFIG, MANY, None, num_features=10)["item features"] == rows + features
    # 200 groups draw 1024 items each, and a batch has 25600 inputs and as many targets
    touched = 200 * 1024 + 2 * 25600
    for rule in ("rowwise_adagrad", "lazy_adam"):
        got = estimate(CONFIG, MANY, rule, num_features=10)["item features"]
        assert got == rows + features + 4 * 10 * touched


def test_a_run_with_features_is_told_what_fits_it():
    """Never a table in the host's memory, which takes no features."""
    config = replace(CONFIG, item_features="i.csv", feature_columns="kind", item_optimizer="rowwise-adagrad")
    require_memory(config, MANY, 52 * GIB, lends_host=True)
    # 24 GiB each for the table and for rows with features, 0.4 a feature
    with pytest.raises(ConfigError, match=r"got about 5\d\.\d GiB .*item features 27\.\d.*a smaller dim or batch_size"):
        require_memory(config, MANY, 52 * GIB, lends_host=True, num_features=10)
    with pytest.raises(ConfigError, match=r"item_optimizer = rowwise-adagrad takes 5\d\.\d, "):
        require_memory(replace(config, item_optimizer="adamw"), MANY, 110 * GIB, lends_host=True, num_features=10)

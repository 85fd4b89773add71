"""The study: digests of the grid, its rows, and the figures, tables and images that follow from them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from typer.testing import CliRunner

from benchmarks.study import __main__ as study
from benchmarks.study import cells, parts
from benchmarks.study.cells import FULL, GROUPED, INDEPENDENT, Cell, grouped
from benchmarks.study.defaults import DEFAULTS, DRAWS, FINALISTS, draws
from benchmarks.study.defaults_table import compared, defaults_table
from benchmarks.study.intervals import interval, paired_ratio, relative_difference
from benchmarks.study.parts import select
from benchmarks.study.results import COLUMNS, ResultsError, add, add_times, read
from benchmarks.study.table import seconds_to_best
from tests.benchmarks.walks import SMALL


def row(
    method: str = GROUPED.name, dataset: str = "nowplaying", seed: int = 1, ndcg: float = 0.05, **changes: object
) -> dict[str, object]:
    values = dict.fromkeys(COLUMNS, "") | {
        "dataset": dataset, "method": method, "framework": "torch", "seed": seed, "digest": f"{method} on {dataset}",
        "epochs": 3, "best_epoch": 1, "steps_per_epoch": 100, "valid_ndcg@10": ndcg, "valid_hr@10": 2 * ndcg,
        "test_ndcg@10": ndcg,
        "test_hr@10": 2 * ndcg, "test_coverage@10": 0.5, "test_surprisal@10": 0.5, "valid_curve": "0.01 0.03 0.02",
        "train_seconds": 30.0,
    }  # fmt: skip
    return values | changes


def test_every_option_of_a_cell_has_its_own_digest():
    digests = {run.cell.digest for part in parts.PARTS.values() for run in part()}
    named = {(run.cell.dataset.name, run.cell.method.name) for part in parts.PARTS.values() for run in part()}
    assert len(digests) == len(named)
    digest = Cell(SMALL, GROUPED).digest
    others = {
        "dropout": 0.2,
        "num_negatives": 20,
        "group_size": 64,
        "shuffle_rows": False,
        "logq_correction": False,
        "precision": "fp32",
    }
    others |= {
        "dim": 32,
        "max_length": 7,
        "epochs": 4,
        "patience": 2,
        "eval_every": 2,
        "batch_size": 8,
        "split": "sessions",
    }
    changed = [
        Cell(SMALL, replace(GROUPED, options={**GROUPED.options, name: value})).digest
        for name, value in list(others.items())[1:5]
    ]
    changed += [
        Cell(SMALL, GROUPED, {name: value}).digest for name, value in others.items() if name not in GROUPED.options
    ]
    changed += [
        Cell(SMALL, replace(GROUPED, one_draw=True)).digest,
        Cell(replace(SMALL, name="others"), GROUPED).digest,
    ]
    assert digest not in changed
    assert digest == Cell(SMALL, GROUPED, {"data_on": "host", "deterministic": True, "profile": True}).digest
    assert Cell(SMALL, grouped(256)) == Cell(SMALL, GROUPED)


def test_unknown_parts_and_data_sets_are_named():
    with pytest.raises(KeyError, match="part: expected one of losses"):
        select(["nothing"])
    with pytest.raises(KeyError, match="data set: expected one of nowplaying"):
        select(["losses"], ["nothing"])
    assert {run.cell.dataset.name for run in select(["negatives"], ["git_commits"])} == {"git_commits"}


def test_rows_replace_those_of_the_same_run(tmp_path: Path):
    path = tmp_path / "study.csv"
    add(path, [row(seed=1, ndcg=0.1), row(seed=2, ndcg=0.2), row(INDEPENDENT.name, seed=1, ndcg=0.3)])
    add(path, [row(seed=1, ndcg=0.4)])
    assert [r["test_ndcg@10"] for r in read(path)] == ["0.4", "0.2", "0.3"]
    add_times(
        path,
        f"{GROUPED.name} on nowplaying",
        {"loss_ms": 0.5, "loss_mib": 8.0, "step_ms": 2.0, "step_mib": 90.0, "times_commit": "abc1234"},
    )
    assert [(r["loss_ms"], r["times_commit"]) for r in read(path)] == [("0.5", "abc1234"), ("0.5", "abc1234"), ("", "")]
    timed = read(path)[0]
    assert seconds_to_best(timed, "loss_ms") == pytest.approx(2 * 100 * 0.5 / 1000)
    add(path, [row(seed=9)])
    assert [r["loss_ms"] for r in read(path)] == [
        "0.5",
        "0.5",
        "0.5",
        "",
    ]  # a seed trained later takes the times of its cell
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ResultsError, match="other columns"):
        read(path)


def test_intervals_are_those_of_students_t():
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high - 2.0 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)  # t of 2 degrees of freedom, 97.5%
    assert found.low == pytest.approx(4.0 - found.high)
    assert interval([1.0]).high == math.inf


def test_relative_differences_are_welchs():
    """As the test of a / b - 1 = 0 of scipy's unequal-variance t-test, where the means are equal and the ratio's error
    is the difference's."""
    a, b = [0.9, 1.2, 0.9, 1.0], [0.95, 1.05, 1.0]
    rows, reference = ([{"test_ndcg@10": str(value)} for value in values] for values in (a, b))
    found = relative_difference(rows, reference)
    welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)  # type: ignore
    assert (found.low, found.high) == pytest.approx((welch.low, welch.high), rel=1e-9)
    doubled = relative_difference([{"test_ndcg@10": str(2 * value)} for value in a], reference)
    assert doubled.mean == pytest.approx(1.0)
    assert doubled.high - doubled.mean == pytest.approx(2 * (found.high - found.mean), rel=1e-9)
    assert relative_difference(rows, reference[:1]).high == math.inf


def test_table_and_images_come_from_the_rows(tmp_path: Path):
    path = tmp_path / "study.csv"
    times: dict[str, Any] = {
        "loss_ms": 0.5,
        "loss_mib": 8.0,
        "step_ms": 2.0,
        "step_mib": 90.0,
        "times_commit": "abc1234",
    }
    levels = {FULL.name: 0.05, GROUPED.name: 0.049, INDEPENDENT.name: 0.051, grouped(1024).name: 0.05}
    add(
        path,
        [row(name, seed=seed, ndcg=ndcg + seed / 1e4, **times) for name, ndcg in levels.items() for seed in (1, 2, 3)],
    )
    for k in (256, 4096):
        add(
            path, [row(cells.balanced(128, k, 200).name, "git_commits", num_negatives=k, dim=128, rows=20_000, **times)]
        )
    shown = CliRunner().invoke(study.app, ["table", "--csv", str(path)])
    assert shown.exit_code == 0, shown.output
    line = next(line for line in shown.output.splitlines() if line.startswith(f"| {GROUPED.name} |"))
    assert "| 3 | 0.0492 ± 0.0002 |" in line
    assert "| 98.0% ± 0.4% |" in line
    assert "| 0.500 | 2.000 | 0.10 | 0.40 | 8 | 0.50 |" in line
    drawn = CliRunner().invoke(study.app, ["plot", "--csv", str(path), "--out", str(tmp_path)])
    assert drawn.exit_code == 0, drawn.output
    drawn = {f"study_{name}.png" for name in ("losses", "sharing", "time", "negatives", "balance")}
    assert drawn < {path.name for path in tmp_path.iterdir()}


def test_rows_alone_are_compared_by_seeds(tmp_path: Path):
    path = tmp_path / "study.csv"
    dataset, rates = next(iter(cells.BEST_TABLE_RATES.items()))
    optimizer, rate = next(iter(rates.items()))
    of_rows = cells.of_rows(optimizer, rate).name
    shares = {1: 0.99, 2: 1.01, 3: 1.0}
    for seed, share in shares.items():
        add(
            path,
            [row(cells.WHOLE_TABLE.name, dataset, seed, 0.1 * seed), row(of_rows, dataset, seed, 0.1 * seed * share)],
        )
    rows, whole = (
        [each for each in read(path) if each["method"] == name] for name in (of_rows, cells.WHOLE_TABLE.name)
    )
    found = paired_ratio(rows, whole, 0.9)
    assert paired_ratio(rows[::-1], whole, 0.9) == found
    assert paired_ratio(rows, whole[:1], 0.9).mean == pytest.approx(0.99)  # of the seed that both have
    assert math.isnan(paired_ratio(rows, [], 0.9).mean)
    expected = stats.ttest_1samp(list(shares.values()), 0).confidence_interval(0.9)  # type: ignore
    assert (found.mean, found.low, found.high) == pytest.approx((1.0, expected.low, expected.high))
    shown = CliRunner().invoke(study.app, ["table", "--csv", str(path)])
    (line,) = (line for line in shown.output.splitlines() if line.startswith(f"| {dataset} | {optimizer} |"))
    assert line.startswith(f"| {dataset} | {optimizer} | {rate:g} | 3 | 0.2003 ± ")
    assert line.endswith("| 100.0% | 98.3% | 2 |")


def test_the_rates_of_item_tables_are_the_best_on_validation():
    rows = {(row["dataset"], row["method"]): row for row in read(study.CSV) if row["seed"] == "1"}
    for dataset in cells.TABLE_SETS:
        for optimizer, rates in cells.TABLE_RATES.items():
            reached = {rate: rows[dataset, cells.of_rows(optimizer, rate).name]["valid_ndcg@10"] for rate in rates}
            assert cells.BEST_TABLE_RATES[dataset][optimizer] == max(rates, key=lambda rate: float(reached[rate]))


def test_the_finalists_are_the_best_on_validation():
    rows = {(row["dataset"], row["method"]): row for row in read(study.CSV) if row["seed"] == "1"}
    for dataset, finalists in FINALISTS.items():
        reached = [float(rows[dataset, method.name]["valid_ndcg@10"]) for method in draws()]
        assert list(finalists) == sorted(range(DRAWS), key=lambda number: -reached[number])[: len(finalists)]


def test_the_best_of_the_search_is_chosen_on_validation():
    """By the mean over the defaults' seeds; without all of a set's rows nothing is said of it."""
    finalists = [draws()[number].name for number in FINALISTS["amazon_beauty"]]

    def rows(seeds: tuple[int, ...]) -> list[dict[str, str]]:
        found = [row(DEFAULTS.name, "amazon_beauty", seed, 0.09) for seed in (1, 2)]
        for place, name in enumerate(finalists):
            found += [
                row(name, "amazon_beauty", seed, 0.1 - 0.01 * place, **{"valid_ndcg@10": 0.1 * place * seed})
                for seed in seeds
            ]
        return [{key: str(value) for key, value in each.items()} for each in found]

    (found,) = compared(rows((1, 2))).values()
    assert found.best[0]["method"] == finalists[2]  # whose test is the lowest
    assert found.share == pytest.approx(0.09 / 0.08)
    assert not compared(rows((1,)))


def test_rows_of_an_older_grid_are_refused(tmp_path: Path):
    path = tmp_path / "study.csv"
    add(path, [row(seed=1), row(seed=2, digest="another")])
    for command in (["table"], ["plot", "--out", str(tmp_path)]):
        refused = CliRunner().invoke(study.app, [*command, "--csv", str(path)])
        assert refused.exit_code == 2
        assert "expected rows of one cell" in refused.output


def test_the_readme_has_the_tables_of_the_rows():
    folder = Path(study.__file__).parent
    shown = CliRunner().invoke(study.app, ["table"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.count("\n|") > 40
    assert shown.output.strip() in (folder / "README.md").read_text()
    assert defaults_table(read(study.CSV)) in (folder.parents[1] / "docs" / "defaults.md").read_text()


def test_the_rows_are_of_the_grid():
    """A row whose cell is no longer in the grid would be taken for one that is, by its method's name."""
    grid = {
        (run.cell.dataset.name, run.cell.method.name, run.cell.digest)
        for part in parts.PARTS.values()
        for run in part()
    }
    rows = [row for row in read(study.CSV) if not row["method"].startswith("training command")]
    assert {(row["dataset"], row["method"], row["digest"]) for row in rows} <= grid
    assert rows

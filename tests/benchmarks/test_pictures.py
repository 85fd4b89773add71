"""Every picture of results can be read at the width of a page, and pages show those that there are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from cce_minus.recsys.run.comparison import MOST_DRAWN
from cce_minus.recsys.run.learning_curve import learning_curve
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.catalog import __main__ as catalog
from benchmarks.catalog import plots as catalog_plots
from benchmarks.catalog.results import read as read_catalog
from benchmarks.days import __main__ as days
from benchmarks.days import plots as days_plots
from benchmarks.days.results import read as read_days
from benchmarks.loss import plots as loss_plots
from benchmarks.loss.results import read as read_loss
from benchmarks.pictures import label_ends, picture, save_all
from benchmarks.runs import __main__ as runs
from benchmarks.runs import plots as runs_plots
from benchmarks.runs.results import read as read_runs
from benchmarks.scaling import __main__ as scaling
from benchmarks.scaling import plots as scaling_plots
from benchmarks.scaling.results import read as read_scaling
from benchmarks.study import __main__ as study
from benchmarks.study import plots as study_plots
from benchmarks.study.defaults_table import OF_PRODUCT
from benchmarks.study.epoch_time import COLUMNS as EPOCHS
from benchmarks.study.results import read as read_study
from tests.benchmarks.pictures import faults

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def of_study() -> dict[str, Figure]:
    return study_plots.figures([row for row in read_study(study.CSV) if row["method"] not in OF_PRODUCT])


DRAWN: dict[str, Callable[[], dict[str, Figure]]] = {
    "catalog": lambda: catalog_plots.figures(read_catalog(catalog.CSV)),
    "days": lambda: days_plots.figures(read_days(days.CSV)),
    "loss": lambda: loss_plots.figures(read_loss(RESULTS / "loss.csv")),
    "runs": lambda: runs_plots.figures(read_runs(runs.CSV)),
    "scaling": lambda: scaling_plots.figures(read_scaling(scaling.CSV)),
    "study": of_study,
    "epochs": lambda: study_plots.epoch_figures(read_study(RESULTS / "study_epochs.csv", EPOCHS)),
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, Figure]:
    return {name: figure for figures in DRAWN.values() for name, figure in figures().items()}


def test_pictures_can_be_read(drawn: dict[str, Figure], tmp_path: Path):
    wrong = {name: found for name, figure in drawn.items() if (found := faults(figure))}
    assert not wrong
    paths = save_all(drawn, tmp_path / "new")
    assert [path.name for path in paths] == list(drawn)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def title_of(figure: Figure) -> str:
    return figure.texts[0].get_text()


def test_the_folder_of_results_has_these_pictures(drawn: dict[str, Figure]):
    """By their titles, which tell of the rows: `plot` draws them anew."""
    kept = {path.name: Image.open(path).info.get("Title") for path in RESULTS.glob("*.png")}
    assert kept == {name: title_of(figure) for name, figure in drawn.items()}


def test_pages_show_every_picture_and_say_what_is_in_it(drawn: dict[str, Figure]):
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").rglob("*.md")]
    image = re.compile(r"!\[([^\]]*)\]\(\S*results/(\S+\.png)\)")
    shown = [found for page in pages for found in image.findall(page.read_text())]
    assert {name for _, name in shown} == set(drawn)
    assert not [name for text, name in shown if len(text.split()) < 8]


def curves(folder: Path, names: list[str]) -> Figure:
    logs: dict[str, Path] = {}
    for place, name in enumerate(names):
        logs[name] = folder / f"{place}.csv"
        lines = [f"{epoch},{epoch},{9 - place - epoch},{0.1 + place / 100 + epoch / 50},1" for epoch in range(4)]
        logs[name].write_text("\n".join(["epoch,step,train_loss,ndcg@10,seconds", *lines, ""]))
    return learning_curve(logs, {"popularity": 0.05} if len(names) < MOST_DRAWN else {})


MOST = [f"runs/of-a-long-name/{n}" for n in range(MOST_DRAWN)]


@pytest.mark.parametrize("names", [["torch"], ["PyTorch", "JAX"], MOST])
def test_learning_curves_can_be_read(tmp_path: Path, names: list[str]):
    assert not faults(curves(tmp_path, names))


def good() -> Figure:
    figure, (axes,) = picture("A message", "how it was measured", 3.0)
    axes.set(xlabel="negatives a row", ylabel="milliseconds a step")
    label_ends(axes, [axes.plot([1, 2], [1, 2 + n / 1000], label=f"line {n}")[0] for n in range(3)])
    return figure


def many_lines(figure: Figure) -> None:
    for n in range(7):
        figure.axes[0].plot([1, 2], [1, n], color=(n / 7, 0, 0))


BAD: dict[str, Callable[[Figure], object]] = {
    "a panel has 10 series": many_lines,
    "'tiny' has letters of 6.9 pixels": lambda figure: figure.text(0.3, 0.3, "tiny", size=5),
    "'far away' is outside of the picture": lambda figure: figure.text(0.99, 0.5, "far away"),
    "'one' and 'two' overlap": lambda figure: [figure.text(0.3, 0.3, text) for text in ("one", "two")],
    "the y axis has no unit: ['time']": lambda figure: figure.axes[0].set_ylabel("time"),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_cannot_be_read_is_told(fault: str):
    figure = good()
    assert not faults(figure)
    BAD[fault](figure)
    assert faults(figure) == [fault]

"""From your own logs to recommendations, with PyTorch or with Flax: ``python docs/examples/tutorial.py torch`` (or
``jax``).

The logs of a small shop are made up here: customers who go through chapters of a few series. Replace ``write_logs`` by
your own file, with one event a row: who, what and when. Every step names the command that does the same from a shell.
"""

from __future__ import annotations

import csv
import importlib
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from cce_minus.recsys import PopularityBaseline, TrainConfig, prepare_data
from cce_minus.recsys.serving import Selection, ServedRun, recommend_run

SERIES, CHAPTERS, CUSTOMERS = 30, 8, 400


def write_logs(folder: Path) -> tuple[Path, Path]:
    """A CSV file of purchases and one of titles. A customer mostly buys the next chapter, and sometimes begins another
    series."""
    rng = np.random.default_rng(0)
    logs, titles = folder / "purchases.csv", folder / "products.csv"
    with logs.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["customer", "sku", "bought_at"])
        for customer in range(CUSTOMERS):
            series, chapter, day = int(rng.integers(SERIES)), 0, int(rng.integers(300))
            for _ in range(int(rng.integers(5, 15))):
                writer.writerow([f"c{customer}", f"s{series:02}-{chapter}", day])
                day += int(rng.integers(1, 10))
                chapter += 1
                if chapter == CHAPTERS or rng.random() < 0.15:
                    series, chapter = int(rng.integers(SERIES)), 0
    with titles.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sku", "title"])
        for series in range(SERIES):
            writer.writerows(
                [f"s{series:02}-{chapter}", f"Series {series}, chapter {chapter + 1}"] for chapter in range(CHAPTERS)
            )
    return logs, titles


def main(framework: str, folder: Path) -> dict[str, float]:
    """Trains on the logs, compares with popularity and recommends; returns the test metrics of both."""
    logs, titles = write_logs(folder)

    # 1. What to train on, and how. The loss is cross-entropy with 64 sampled negatives for each position (CCE-).
    #    cce-minus-torch train --data purchases.csv --user-column customer --item-column sku --time-column bought_at
    #        --titles products.csv --min-user-events 3 --max-length 20 --num-negatives 64 --epochs 10 --out runs/shop
    config = TrainConfig(
        data=str(logs), user_column="customer", item_column="sku", time_column="bought_at", titles=str(titles),
        min_user_events=3, split="leave-one-out",
        model="sasrec", max_length=20, dim=32, dropout=0.2,
        num_negatives=64, group_size=64,
        epochs=10, batch_size=32, learning_rate=5e-3,
        metrics_at="5,10", out=str(folder / "shop"),
    )  # fmt: skip

    # 2. Train. Each customer's last purchase is the test and the one before it the validation, which chooses the epoch.
    #    The folder gets the weights, the metrics of every epoch, a learning curve, and a checkpoint from which
    #    `resume=True` goes on.
    train = importlib.import_module(f"cce_minus.{framework}_impl.train").train
    result = train(config)

    # 3. Is it any good? Every model must beat the most popular items.
    _, split = prepare_data(config)
    popularity = PopularityBaseline(split.train, split.num_items).metrics(split.test_target)
    print(f"NDCG@10 of {framework}: {result.test['ndcg@10']:.3f}, of popularity: {popularity['ndcg@10']:.3f}")

    # 4. Recommend to customers of the logs, and to somebody new by what they bought. Either framework serves what the
    #    other trained.
    #    cce-minus-torch recommend --run runs/shop --user c7
    #    cce-minus-torch recommend --run runs/shop --sequences new.json --k 3
    load = importlib.import_module(f"cce_minus.{framework}_impl.serve").load_served
    run = ServedRun.open(config.out)
    new = folder / "new.json"
    new.write_text(json.dumps({"somebody new": ["s03-0", "s03-1", "s03-2"]}))
    for selection in (Selection(user=["c7"]), Selection(sequences=new)):
        for part in recommend_run(run, load, selection, k=3):
            for row in part.rows():
                print(f"{row.user}, after {' - '.join(row.last_seen)}: {' | '.join(row.names)}")
    return {"model": result.test["ndcg@10"], "popularity": popularity["ndcg@10"]}


if __name__ == "__main__":
    if sys.argv[1:] not in (["torch"], ["jax"]):
        sys.exit("usage: python docs/examples/tutorial.py torch|jax")
    with tempfile.TemporaryDirectory() as temporary:
        main(sys.argv[1], Path(temporary))

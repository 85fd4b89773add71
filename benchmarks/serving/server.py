"""Two runs, a server of them in a process of its own, and the load that it is put under."""

from __future__ import annotations

import asyncio
import importlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .clients import Expected, K, Tally, load

HISTORIES = 500
"""That clients ask for: the last items of as many users."""


def train(folder: Path, framework: str, data: str) -> list[Path]:
    """Two runs of the defaults from two seeds, of 3 epochs each."""
    recommender = importlib.import_module(f"cce_minus.{framework}_impl").Recommender
    runs = [folder / name for name in ("first", "second")]
    for seed, run in enumerate(runs):
        if not (run / "result.json").exists():
            recommender(max_length=50, epochs=3, seed=seed, out=str(run)).fit(data)
    return runs


def expected_of(run: Path, framework: str) -> tuple[list[list[int]], Expected]:
    """Histories of users, and what the run recommends after them."""
    model = importlib.import_module(f"cce_minus.{framework}_impl").Recommender.load(run)
    from cce_minus.recsys.serving.requests import all_users
    from cce_minus.recsys.serving.served_run import ServedRun

    opened = ServedRun.open(run)
    rows = list(all_users(opened.read_events()).histories)[:HISTORIES]
    histories = [opened.catalog.labels[row[-50:]].tolist() for row in rows]
    table = model.recommend(sequences=histories, k=K).to_pylist()
    return histories, [table[begin : begin + K] for begin in range(0, len(table), K)]


@contextmanager
def serving(link: Path, framework: str) -> Iterator[tuple[int, int]]:
    """The port and the process id of a server that has loaded its run."""
    code = f"from cce_minus.{framework}_impl.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", str(link), "--port", "0", "--watch", "0.2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        port = 0
        for line in process.stderr:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                port = int(found[1])
            if "loaded in" in line:
                break
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def turn(link: Path, run: Path) -> None:
    new = link.with_name("new")
    new.unlink(missing_ok=True)
    new.symlink_to(run.absolute())
    new.replace(link)


def memory_of(process: int) -> float:
    """Its resident memory in MiB."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) / 1024


def measure(folder: Path, framework: str, data: str, *, clients: int, seconds: float, turns: int) -> dict[str, object]:
    """The row of a load of so many ``clients``, while the link that is served is turned to the other run so many times,
    after equal parts of the ``seconds``. Memory is measured after 5 s of load, after half of the turns, and at its
    end."""
    runs = train(folder, framework, data)
    found = [expected_of(run, framework) for run in runs]
    histories, expected = found[0][0], [answers for _, answers in found]
    link = folder / "current"
    turn(link, runs[0])
    with serving(link, framework) as (port, process):
        asyncio.run(load(port, histories, expected, clients=clients, seconds=5))
        before = memory_of(process)
        halfway = list[float]()

        def turn_all() -> None:
            for number in range(1, turns + 1):
                time.sleep(seconds / (turns + 1))
                if number == turns // 2 + 1:  # those before it have been taken up, and answered with
                    halfway.append(memory_of(process))
                turn(link, runs[number % 2])

        turning = threading.Thread(target=turn_all)
        turning.start()
        tally = asyncio.run(load(port, histories, expected, clients=clients, seconds=seconds))
        turning.join()
        after = memory_of(process)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            metrics = answer.read().decode()
    memory = {"memory_before_mib": before, "memory_halfway_mib": halfway[0], "memory_after_mib": after}
    return {**_row(tally, metrics, seconds), **{name: round(mib) for name, mib in memory.items()}}


def _row(tally: Tally, metrics: str, seconds: float) -> dict[str, object]:
    import numpy as np

    def count(name: str) -> float:
        found = re.search(rf"^{re.escape(name)} (\S+)$", metrics, re.MULTILINE)
        return float(found[1]) if found else 0.0

    p50, p99 = np.percentile(tally.milliseconds, [50, 99])
    return {
        "requests": len(tally.milliseconds) + len(tally.dropped),
        "per_second": round(len(tally.milliseconds) / seconds),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "most_ms": round(max(tally.milliseconds), 1),
        "dropped": len(tally.dropped),
        "wrong": tally.wrong,
        "reloads": round(count('cce_minus_reloads_total{outcome="loaded"}')),
        "rows_per_call": round(count("cce_minus_batch_rows_sum") / count("cce_minus_batch_rows_count"), 1),
    }

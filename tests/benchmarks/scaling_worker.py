"""Run as one of several processes: a rank that works, fails, ends or is silent."""

from __future__ import annotations

import os
import time

from benchmarks.scaling.workers import Tell


def work(rank: int, tell: Tell, what: str) -> str:
    tell("its work")
    if what == "wait" and rank == 1:
        time.sleep(100)
    if what == "fail" and rank == 1:
        raise ValueError("expected a number")
    if what == "end" and rank == 0:
        os._exit(3)
    return os.environ["NCCL_NVLS_ENABLE"] + str(rank)

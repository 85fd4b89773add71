"""Random calls of every loss, compared with the float64 oracle: ``python -m tests.fuzz --calls 1000 --seed 0``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter, defaultdict

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything defines a kernel
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # in the processes that are started

SHOWN = 60  # failures


def main() -> int:
    from tests.fuzz.calls import Outcome, Plan
    from tests.fuzz.signatures import SIZES
    from tests.fuzz.workers import Died, outcomes, prepare, run

    has_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--framework", choices=["torch", "jax"], default="torch")
    parser.add_argument("--impl", choices=["triton", "reference", "auto", "both"], default="both")
    parser.add_argument("--static-signatures", type=int, default=150, help="samplers, sizes, dtypes and options")
    parser.add_argument("--row-counts", type=int, default=0, help="numbers of rows of each; 0: 3, in JAX 1")
    parser.add_argument("--size", choices=[*SIZES], default="large" if has_gpu else "small")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if has_gpu else "cpu")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no call begins")
    parser.add_argument("--only", type=int, help="this call alone")
    options = parser.parse_args()
    row_counts = options.row_counts or (3 if options.framework == "torch" else 1)
    plan = Plan(options.seed, options.static_signatures, options.size, options.framework, row_counts)
    command = (
        f"python -m tests.fuzz --framework {plan.framework} --seed {plan.seed} --static-signatures {plan.signatures} "
        f"--row-counts {plan.row_counts} --size {plan.size} --device {options.device}"
    )
    if options.workers == 1 or options.only is not None:
        prepare(options.device)
    start = shown_at = time.monotonic()
    if options.only is None:
        found = run(plan, options.calls, options.impl, options.device, options.workers, 60 * options.minutes)
    else:
        found = outcomes(plan, [options.only], options.impl, options.device)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    failures, largest, numbers = [], ("", 0.0), set()
    for each in found:
        if isinstance(each, Died):
            failures.append(f"{command} --only {each.number}\n    the process ended with {each.exit_code}")
            print("FAILED", failures[-1], flush=True)
            continue
        assert isinstance(each, Outcome)
        numbers.add(each.number)
        counts["kinds"][each.kind] += 1
        counts["dtypes"][each.dtype] += 1
        counts["implementations"][f"{plan.framework} {each.impl}"] += 1
        line = f"{command} --impl {each.impl} --only {each.number}"
        if options.only is not None:
            print(each.about)
        if each.failure:
            failures.append(f"{line}\n    {each.failure}\n    {each.about}")
            counts["failures by kind"][f"{each.kind}, {each.dtype}, {each.impl}"] += 1
            if len(failures) <= SHOWN:
                print("FAILED", failures[-1], flush=True)
        elif each.share > largest[1]:
            largest = line, each.share
        if time.monotonic() - shown_at > 15:
            shown_at = time.monotonic()
            print(f"{shown_at - start:6.0f} s  {len(numbers)} calls, {len(failures)} failures", flush=True)
    for name, counted in counts.items():
        print(f"{name}: " + ", ".join(f"{key} {number}" for key, number in sorted(counted.items())))
    print(f"largest error: {largest[1]:.2f} of what is allowed: {largest[0]}")
    print(f"{len(numbers)} calls in {time.monotonic() - start:.0f} s, {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

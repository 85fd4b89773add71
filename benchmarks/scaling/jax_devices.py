"""All devices of JAX, in one process: the time, memory and traffic of a step."""

from __future__ import annotations

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from .cases import STRONG, WEAK, Case
from .jax_collectives import local, traffic_of
from .jax_steps import AXIS, OWN, Step, make_step
from .workers import Tell


def measure_devices(_: int, tell: Tell, case: Case, platform: str) -> dict[str, float]:
    """Milliseconds of a step and of one without exchange, medians over rounds on the host's clock, and bytes; memory is
    what XLA plans for a device. Raises RuntimeError for too few devices of the ``platform``, "gpu" or "cpu", and where
    a loss is not finite."""
    tell("finding devices")
    devices = [device for device in jax.devices() if device.platform == platform][: case.gpus]
    if len(devices) < case.gpus:
        raise RuntimeError(f"expected {case.gpus} devices of platform {platform}, got {jax.devices()}")
    mesh = jax.make_mesh((case.gpus,), (AXIS,), (AxisType.Auto,), devices=devices)
    tell("making tables and model")
    step = make_step(case, mesh)
    jax.block_until_ready((step.state, step.fixed))
    found: dict[str, float] = {"exchange_bytes": 0.0, "dense_bytes": 0.0}
    if case.gpus > 1:
        tell("tracing its step")
        program = jax.make_jaxpr(_sharded(step, mesh, 1))(step.state, step.fixed, jnp.uint32(0))
        found = traffic_of(program, case.gpus)
    chain = Chain(case, mesh, step, tell)
    found |= {"ms": chain.median(), "peak_bytes": chain.planned_bytes}
    if not np.isfinite(chain.losses).all():
        raise RuntimeError(f"expected finite losses, got {chain.losses}: a working set without room, or a fault")
    found["ms_without_exchange"] = found["ms"]
    if case.gpus > 1:
        tell("making its step without exchange")
        with local(case):
            found["ms_without_exchange"] = Chain(case, mesh, step, tell).median()
    return found


class Chain:
    """Steps that follow each other: those of a training are one program, as the training commands' are; a loss alone,
    of which XLA would take out of a program's loop what does not change, is called step by step."""

    def __init__(self, case: Case, mesh: Mesh, step: Step, tell: Tell) -> None:
        self.case, self.step, self.tell = case, step, tell
        self.length = case.steps if case.kind == WEAK else 1
        call = _sharded(step, mesh, self.length) if case.gpus > 1 else _chained(step, self.length)
        arguments = step.state, step.fixed, jnp.uint32(0)
        tell("compiling its step")
        # as in benchmarks/loss, where few launches follow each other; gradients are written over the last step's
        options = {"xla_gpu_graph_min_graph_size": 1} if case.kind == STRONG else None
        jitted = jax.jit(call, donate_argnums=0, keep_unused=True, compiler_options=options)
        self.compiled = jitted.lower(*arguments).compile()
        self.losses = np.zeros(1)

    @property
    def planned_bytes(self) -> float:
        """Of a device: arrays, and temporaries above them; NaN where XLA does not tell."""
        planned = self.compiled.memory_analysis()
        if planned is None:
            return float("nan")
        held = planned.argument_size_in_bytes + planned.output_size_in_bytes - planned.alias_size_in_bytes
        return held + planned.temp_size_in_bytes

    def median(self) -> float:
        """Milliseconds of a step: the median over rounds."""
        times: list[float] = []
        for number in range(self.case.rounds + 1):
            self.tell(f"timing its step, round {number}")
            began, losses = time.perf_counter(), None
            for call in range(0, self.case.steps, self.length):
                first = np.uint32(number * self.case.steps + call)
                self.step.state, losses = self.compiled(self.step.state, self.step.fixed, first)
            jax.block_until_ready((self.step.state, losses))
            times.append((time.perf_counter() - began) / self.case.steps * 1000)
            self.losses = np.asarray(losses)
        return statistics.median(times[1:])


def _chained(step: Step, length: int) -> Any:
    if length == 1:
        return step.take

    def chain(state: Any, fixed: Any, first: Array) -> Any:
        def take(state: Any, number: Array) -> Any:
            # as if each step had a batch of its own: what follows from the batch alone would be taken out of the loop,
            # and ids gathered once
            own, number = jax.lax.optimization_barrier((fixed, first + number))
            return step.take(state, own, number)

        state, losses = jax.lax.scan(take, state, jnp.arange(length, dtype=jnp.uint32))
        return state, losses[-1]

    return chain


def _sharded(step: Step, mesh: Mesh, length: int) -> Any:
    # check_vma would sum dense gradients leaf by leaf, in place of the one collective of the step
    of_state, of_fixed = step.specs
    specs = {"in_specs": (of_state, of_fixed, P()), "out_specs": (of_state, OWN)}
    return jax.shard_map(_chained(step, length), mesh=mesh, check_vma=False, **specs)

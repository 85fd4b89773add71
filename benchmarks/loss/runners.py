"""One provider at one shape: its memory, and the ways its step is run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch

from .inputs import Inputs
from .provider import Provider
from .shapes import Shape
from .timing import Timed

KEYS = 256  # PRNG keys made beforehand: a training step has one at hand
LARGEST_CAPTURED = 6  # a graph keeps its memory: steps that take more than this part of the device's are not captured


def to_jax(inputs: Inputs) -> tuple[Any, ...]:
    """hidden, table and int32 target as JAX arrays on the same memory."""
    import jax.numpy as jnp

    return tuple(jnp.from_dlpack(x) for x in (inputs.hidden, inputs.table, inputs.target.int()))


def torch_arrays(provider: Provider, shape: Shape, device: torch.device) -> dict[str, Any]:
    """``provider.arrays`` as tensors on ``device``; named tuples stay such."""

    def convert(value: Any) -> Any:
        return type(value)(*map(convert, value)) if isinstance(value, tuple) else torch.from_numpy(value).to(device)

    return {name: convert(value) for name, value in provider.arrays(shape).items()}


def jax_arrays(provider: Provider, shape: Shape) -> dict[str, Any]:
    """``provider.arrays`` as JAX arrays."""
    import jax
    import jax.numpy as jnp

    return jax.tree.map(jnp.asarray, provider.arrays(shape))


def _wait(_: object) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class TorchRunner:
    """Gradients are unset before each step, so that a step allocates and fills all it needs.

    Graphs of whole steps share one memory ``pool``: none needs what another left. Messages go to ``note``.
    """

    def __init__(self, provider: Provider, inputs: Inputs, pool: Any, note: Callable[[str], None]) -> None:
        self.provider, self.shape, self.pool, self.note = provider, inputs.shape, pool, note
        dtype = getattr(torch, provider.dtype)
        self.hidden, self.table = (x.detach().to(dtype).requires_grad_() for x in (inputs.hidden, inputs.table))
        self.target = inputs.target
        self.arrays = torch_arrays(provider, inputs.shape, inputs.hidden.device)
        self.extra: int | None = None
        self.kept: list[torch.Tensor] = []  # what captured graphs read

    def forget(self) -> None:
        self.hidden.grad = self.table.grad = None

    def loss(self, hidden: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return self.provider.loss(hidden, table, self.target, self.shape.negatives, None, **self.arrays)

    def step(self) -> None:
        self.forget()
        self.loss(self.hidden, self.table).backward()

    def prepare(self) -> int | None:
        """Compile everything; then the peak bytes of a step above inputs and the table's gradient."""
        self.step()
        self.forget()
        if not torch.cuda.is_available():
            return None
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self.step()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - before
        self.forget()
        self.extra = peak - self.table.numel() * self.table.element_size()
        return self.extra

    def timed(self) -> list[Timed]:
        name = self.provider.name

        def item(timing: str, call: Callable[[], Any], chained: bool = False) -> Timed:
            return Timed(name, timing, call, _wait, chained)

        found = [item("eager", self.step)]
        if self.provider.ours:
            found.append(item("eager chained", self.step, True))
        if torch.cuda.is_available() and self._can_be_captured():
            try:
                graph = self._capture(self.step, self.pool)
                found.append(item("graph", graph.replay))
                if self.provider.ours:
                    found.append(item("graph chained", graph.replay, True))
                    found += [item(timing, half.replay) for timing, half in self._halves().items()]
            except Exception as error:
                self._not_captured(f"{type(error).__name__}: {error}")
            self.forget()
        return found

    def _not_captured(self, reason: str) -> None:
        self.note(f"{self.provider.name}: not captured as a graph: {' '.join(reason.split())[:200]}")

    def _can_be_captured(self) -> bool:
        """A step that waits for the device cannot; trying would leave the allocator and random numbers in the middle of
        a capture."""
        if (self.extra or 0) > torch.cuda.mem_get_info()[1] / LARGEST_CAPTURED:
            self._not_captured("its memory would be held twice")
            return False
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(side):
                self.step()  # autograd meets the stream
                torch.cuda.set_sync_debug_mode("error")
                try:
                    self.step()
                finally:
                    torch.cuda.set_sync_debug_mode("default")
        except RuntimeError as error:
            self._not_captured(str(error))
            return False
        finally:
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            self.forget()
            torch.cuda.empty_cache()  # what the side stream held
        return True

    def _capture(self, call: Callable[[], Any], pool: Any) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # other threads, JAX's among them, may use the device meanwhile
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            call()
        return graph

    def _halves(self) -> dict[str, torch.cuda.CUDAGraph]:
        """Forward and backward as graphs of their own, in a pool where what the forward saved stays for every replay of
        the backward.

        The leaves are their own too: the loss that is kept would tie the eager steps' leaves to the stream of the
        capture.
        """
        pool = torch.cuda.graph_pool_handle()
        leaves = [x.detach().requires_grad_() for x in (self.hidden, self.table)]
        saved: list[torch.Tensor] = []

        def forward() -> None:
            saved.append(self.loss(*leaves))

        def backward() -> None:
            saved.extend(torch.autograd.grad(saved[0], leaves, retain_graph=True))

        graphs = {"forward": self._capture(forward, pool)}
        graphs["backward"] = self._capture(backward, pool)
        self.kept += saved
        graphs["forward"].replay()  # so that the first replay of the backward reads real numbers
        return graphs


class JaxRunner:
    """A jitted step that returns the loss and both gradients, in the memory of the last step's: as a training step
    donates what it replaces.

    XLA records launches as a CUDA graph where enough of them follow each other, which a whole training step has and the
    loss alone lacks when a sort by CUB stands in its middle: OPTIONS record however few there are.
    """

    OPTIONS: ClassVar[dict[str, int]] = {"xla_gpu_graph_min_graph_size": 1}

    def __init__(self, provider: Provider, inputs: Inputs) -> None:
        import jax
        import jax.numpy as jnp

        self.provider, self.shape = provider, inputs.shape
        self.arrays = to_jax(inputs)
        self.given = jax_arrays(provider, inputs.shape)
        self.keys = list(jax.random.split(jax.random.key(0), KEYS))
        self.calls = 0
        self.gradients = tuple(jnp.zeros_like(array) for array in self.arrays[:2])

        def loss(hidden: Any, table: Any, target: Any, given: Any, key: Any) -> Any:
            return provider.loss(hidden, table, target, inputs.shape.negatives, key, **given)

        def step(hidden: Any, table: Any, target: Any, given: Any, key: Any, replaced: Any) -> Any:
            return jax.value_and_grad(loss, (0, 1))(hidden, table, target, given, key)

        self.jitted = jax.jit(step, donate_argnames="replaced", keep_unused=True, compiler_options=self.OPTIONS)

    def step(self) -> Any:
        self.calls += 1
        loss, self.gradients = self.jitted(*self.arrays, self.given, self.keys[self.calls % KEYS], self.gradients)
        return loss

    def prepare(self) -> int | None:
        """Compile, and the bytes of temporaries that XLA plans, with the gradient of the hidden states."""
        import jax

        jax.block_until_ready(self.step())
        analysis = self.jitted.lower(*self.arrays, self.given, self.keys[0], self.gradients).compile().memory_analysis()
        if analysis is None:
            return None
        return analysis.temp_size_in_bytes + 2 * self.shape.rows * self.shape.dim

    def timed(self) -> list[Timed]:
        import jax

        def finish(loss: Any) -> None:
            jax.block_until_ready((loss, self.gradients))

        return [Timed(self.provider.name, "jit chained", self.step, finish, chained=True)]

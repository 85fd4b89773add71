"""What a server has taken up another run for is freed."""

from __future__ import annotations

import asyncio
import gc
import importlib
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jax
import numpy as np
import pytest
from cce_minus.recsys.data.ragged import Ragged
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.server import reload
from cce_minus.recsys.server.limits import Limits
from cce_minus.recsys.server.loaded_run import LoadedRun
from cce_minus.recsys.server.metrics import Metrics
from cce_minus.recsys.server.reload import RunKeeper
from cce_minus.torch_impl.models import build_model
from cce_minus.torch_impl.models.weights import save_weights

from tests.server.walks import Walk, client_of, items_of, keeper_of, walk_run


class Circle(Walk):
    """Is freed by Python's collector alone."""

    def __init__(self) -> None:
        super().__init__()
        self.own = self


@pytest.fixture
def by_hand() -> Iterator[None]:
    """Nothing is collected but where it is asked for."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def ask(client: httpx.AsyncClient) -> None:
    assert items_of(await client.post("/recommend", json={"sequences": [[3]], "k": 2})) == [[4, 5]]


async def until_gone(run: weakref.ref[Any]) -> None:
    for _ in range(500):
        if run() is None:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it is still there")


@pytest.mark.usefixtures("by_hand")
def test_an_idle_server_keeps_no_old_run():
    async def work() -> None:
        metrics = Metrics()
        keeper = keeper_of(walk_run(Walk()), metrics)
        async with client_of(keeper, Limits(), metrics) as client:
            await ask(client)
            assert keeper.loaded is not None
            old = weakref.ref(keeper.loaded)
            keeper.loaded = walk_run(Walk())
            await asyncio.sleep(0.1)
            gc.collect()
            await until_gone(old)

    asyncio.run(work())


@pytest.mark.usefixtures("by_hand")
def test_a_request_in_flight_lets_an_old_run_go():
    async def work() -> None:
        metrics = Metrics()
        keeper = RunKeeper(Path("walk"), lambda path: walk_run(Circle()), seconds=0, metrics=metrics)
        keeper.start(failed=lambda: None)
        try:
            async with client_of(keeper, Limits(), metrics) as client:
                while keeper.loaded is None:
                    await asyncio.sleep(0.01)
                model = keeper.loaded.model
                assert isinstance(model, Circle)
                model.goes_on.clear()
                request = asyncio.create_task(ask(client))
                assert await asyncio.to_thread(model.entered.wait, 10)
                keeper.wake()
                while keeper.loaded.model is model:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.2)
                model.goes_on.set()
                await request
                gone = weakref.ref(model)
                del model
                await until_gone(gone)
        finally:
            keeper.stop()

    asyncio.run(work())


@pytest.mark.usefixtures("by_hand")
def test_a_refused_run_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reload.logger, "disabled", True)  # what is captured has the error, and thereby the run
    models = list[weakref.ref[object]]()

    def load(path: Path) -> LoadedRun:
        loaded = walk_run(Circle())
        models.append(weakref.ref(loaded.model))
        (path / "config.json").write_text("changes while it is read")
        return loaded

    metrics = Metrics()
    keeper = RunKeeper(tmp_path, load, seconds=0, metrics=metrics)
    keeper._take_up()
    assert 'outcome="refused"} 1' in metrics.text(0, True)
    assert models[0]() is None


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of models of unlike catalogs, as each day's."""
    folder = tmp_path_factory.mktemp("weights")
    for num_items in (40, 50, 60):
        config = ModelConfig(num_items=num_items, max_length=8, dim=8, num_blocks=1, num_heads=1)
        save_weights(build_model(config), folder / f"{num_items}.safetensors")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_models_of_other_catalogs_leave_nothing(framework: str, weights: list[Path]):
    load = importlib.import_module(f"cce_minus.{framework}_impl.serve").load_served
    served, old, programs = None, list[weakref.ref[object]](), list[int]()
    for path in weights:
        before, served = served, load(path, "cpu")
        histories = Ragged.from_rows([np.zeros(1, np.int32)])
        if before is not None:  # of which a request is in flight
            before.recommend(histories, 4, filter_seen=True)
        served.recommend(histories, 4, filter_seen=True)
        del before
        gc.collect()
        assert all(model() is None for model in old)
        old.append(weakref.ref(served.model))
        programs.append(len(jax.devices("cpu")[0].client.live_executables()))
    if framework == "jax":
        assert max(programs) == programs[0]

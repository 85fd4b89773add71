"""The processes that train together, a device each: which of them this one is, and what they exchange."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from ..kernels.draws.shard import Shard
from ..recsys import ConfigError, TrainConfig
from ..recsys.run.run_directory import RunDirectory
from .heartbeat import machine, watching_each_other
from .loss.exchange import all_gather
from .meeting import meeting

PROJECT = __name__.split(".")[0]
"""The logger of all of the project."""

_LARGE = 2**20  # numbers of a gradient that is worth a collective of its own: others are copied together


@dataclass(frozen=True)
class Ranks:
    """This process is number ``index`` of ``number``, on the device ``local`` of its host. Alone it exchanges
    nothing."""

    index: int = 0
    number: int = 1
    local: int | None = None
    job: str = ""
    """What torchrun started them as, the same when it starts them again."""

    @property
    def is_first(self) -> bool:
        """Whether this one logs and writes."""
        return self.index == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, the same bits on all."""
        if self.number > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def largest(self, number: Tensor) -> Tensor:
        """The largest over ranks, NaN if there is one among them."""
        return self.gather(number.view(1)).amax()

    def any(self, asked: bool, device: torch.device) -> bool:
        """Whether any rank has ``asked``; exchanged on ``device``, a rank's own."""
        if self.number == 1:
            return asked
        return bool(self.largest(torch.tensor(float(asked), device=device)))

    def shard(self, num_items: int) -> Shard | None:
        """This rank's part of a table of all items; None where it has all of it."""
        return None if self.number == 1 else Shard(num_items, self.number, self.index)

    def gather(self, tensor: Tensor) -> Tensor:
        """All ranks' tensors of this one's shape, one behind the other."""
        if self.number == 1:
            return tensor
        return all_gather(tensor, None).flatten(0, 1)

    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Puts the sum over ranks in each tensor's place."""
        if self.number == 1:
            return
        every = [tensor for tensor in tensors if tensor.numel()]
        small = [tensor for tensor in every if tensor.numel() < _LARGE]
        for tensor in every:
            if tensor.numel() >= _LARGE:
                dist.all_reduce(tensor)
        if small:
            together = torch.cat([tensor.reshape(-1) for tensor in small])
            dist.all_reduce(together)
            for tensor, total in zip(small, together.split([tensor.numel() for tensor in small]), strict=True):
                tensor.copy_(total.view_as(tensor))

    def take_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Puts the first rank's numbers in each tensor's place."""
        if self.number > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Waits until all ranks are here."""
        if self.number > 1:
            dist.barrier()

    def have_begun(self, run: RunDirectory) -> bool:
        """Whether the processes are started again, after this job had begun the ``run``; the first rank knows."""
        begun = [bool(self.job) and run.job.exists() and run.job.read_text() == self.job]
        if self.number > 1:
            dist.broadcast_object_list(begun)
        return begun[0]

    def require_alike(self, told: str) -> None:
        """Raises ``ConfigError``, on all of several ranks, unless all have been ``told`` the same."""
        every = [""] * self.number
        dist.all_gather_object(every, told)
        if others := [rank for rank, each in enumerate(every) if each != every[0]]:
            raise ConfigError(
                f"devices: expected the same options, events and checkpoint on all ranks, got others than rank 0's on "
                f"{', '.join(map(str, others))}"
            )


@contextmanager
def joined(config: TrainConfig) -> Iterator[Ranks]:
    """The ranks that torchrun has started, of which this process is one, alone where it has started none; the first one
    is heard, the others are silent. Raises ``ConfigError`` where there are fewer GPUs, or other ``devices`` are asked
    for."""
    if not dist.is_torchelastic_launched():
        yield Ranks()
        return
    index, number, local, of_host = (
        int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    if config.devices not in (1, of_host):
        raise ConfigError(f"devices: expected 1 or {of_host}, the processes of this host, got {config.devices}")
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        if (present := torch.cuda.device_count()) < of_host:
            raise ConfigError(f"devices: expected at most {present}, the GPUs of this host, got {of_host}")
        torch.cuda.set_device(local)
    else:
        torch.set_num_threads(max((os.cpu_count() or 1) // of_host, 1))
    logger = logging.getLogger(PROJECT)
    level = logger.level
    if index:
        logger.setLevel(logging.ERROR)
    prefixed: Any = dist.PrefixStore  # pyright: ignore[reportPrivateImportUsage]
    of_group, of_signs = (next(rendezvous("env://"))[0] for _ in range(2))  # of which the one may wait
    name = meeting(of_group, index, number)
    if not dist.is_initialized():  # a training before this one may have ended in an error
        place = torch.device("cuda", local) if on_gpu else None
        group = {"store": prefixed(f"{name} group", of_group), "rank": index, "world_size": number, "device_id": place}
        dist.init_process_group("nccl" if on_gpu else "gloo", **group)
    told = [_job()]
    dist.broadcast_object_list(told)
    try:
        with watching_each_other(prefixed(f"{name} signs", of_signs), index, number):
            yield Ranks(index, number, local, told[0])
            dist.barrier()  # until all is written: the launcher ends all with a process that ends badly
    finally:
        logger.setLevel(level)
    # not after an error, whose frames may hold graphs with collectives: NCCL would wait for their end
    dist.destroy_process_group()


def started_together() -> bool:
    """Whether this is one of several processes of torchrun, which may not have met."""
    return dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


def _job() -> str:
    """The launcher's own name of what it runs, or else the launcher."""
    name = os.environ["TORCHELASTIC_RUN_ID"]
    return f"{machine()} {os.getppid()}" if name == "none" else name

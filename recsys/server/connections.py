"""Connections of clients that are slow to ask, or to take their answers."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class PatientProtocol(H11Protocol):
    """uvicorn's protocol, which closes a connection whose request's head has not come in the seconds of its keep-alive,
    aborts one of whose answer nothing is taken in as many, and answers a client that has said all and closed its side.

    Its ``limit_concurrency`` bounds connections: one more is aborted as it comes.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # uvicorn would accept connections without bound, and refuse the requests of all of them
        self._most, self.limit_concurrency = self.limit_concurrency, None
        self._patience: asyncio.TimerHandle | None = None
        self._look: asyncio.TimerHandle | None = None
        self._untaken = 0  # bytes at the last look, 0 where some were taken since

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        if self._most is not None and len(self.connections) > self._most:
            self.connections.discard(self)
            transport.abort()
            return
        # head and body are written one after the other: else the body waits 40 ms for the head to be acknowledged
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()
        self._look = self.loop.call_later(self.timeout_keep_alive, self._abort_untaken)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._calm()
        if self._look is not None:
            self._look.cancel()

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._is_answered_now()  # true keeps the connection open to write to

    def resume_writing(self) -> None:
        super().resume_writing()
        self._untaken = 0

    def on_response_complete(self) -> None:
        self._untaken = 0  # an answer more may hide what was taken of the one before it
        super().on_response_complete()

    def _abort_untaken(self) -> None:
        """Looks for the whole life of a connection, whichever of uvicorn's timers run: it may be closing already."""
        size = self.transport.get_write_buffer_size()
        if 0 < self._untaken <= size:
            self.transport.abort()
            return
        self._untaken = size
        self._look = self.loop.call_later(self.timeout_keep_alive, self._abort_untaken)

    def _is_answered_now(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _watch(self) -> None:
        """Counts from the first look at a head that is not whole, whatever trickles in."""
        if self._is_answered_now():
            self._calm()
        elif self._patience is None:
            self._patience = self.loop.call_later(self.timeout_keep_alive, self._close)

    def _calm(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _close(self) -> None:
        """Sends what was not taken yet, as long as some of it is."""
        self._patience = None
        if not self._is_answered_now() and not self.transport.is_closing():
            self.transport.close()

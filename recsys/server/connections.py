"""Connections of clients that are slow to ask."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class PatientProtocol(H11Protocol):
    """uvicorn's protocol, which closes a connection whose request's head has not come in the seconds of its keep-alive
    or whose answer nobody takes, and answers a client that has said all and closed its side."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        # head and body are written one after the other: else the body waits 40 ms for the head to be acknowledged
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._calm()

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._is_answered_now()  # true keeps the connection open to write to

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self.loop.call_later(self.timeout_keep_alive, self.transport.abort)  # with what was not taken

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
        self._patience = None
        if not self._is_answered_now() and not self.transport.is_closing():
            self.transport.close()

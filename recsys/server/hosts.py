"""The names by which a server may be called: a page of a stranger's, whose name is made to point to this machine, is
none of them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

from ..option_checks import require

ANY = "*"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PLAIN = re.compile(r"[^\s:/@\[\]]+")
_HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(?::[0-9]*)?")


class Hosts:
    """Those of a server that listens on ``host``: loopback's, this very one, and ``others``, of which `ANY` allows all.

    A server that listens on all addresses may be called by any address, which, unlike a name, nobody makes point
    elsewhere. Raises ``ConfigError`` for others that are no names.
    """

    def __init__(self, host: str, others: Sequence[str] = ()) -> None:
        for name in others:
            is_name = _PLAIN.fullmatch(name) or _address(name.removeprefix("[").removesuffix("]"))
            require(bool(is_name), "allow_host", f"a name or an address without a port, or {ANY}", f"{name!r:.80}")
        self._has_any = ANY in others
        self._names = {_name(each) for each in (*_LOOPBACK, host, *others)}
        self._has_addresses = _is_unspecified(host)
        self._told = ", ".join(dict.fromkeys([*_LOOPBACK, host, *others]))

    def refused(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """Why a request of these is none of this server's, if so."""
        given = [value.decode("latin-1") for name, value in headers if name == b"host"]
        if self._has_any or (given and all(map(self._allows, given))):
            return None
        got = f"{', '.join(given)!r:.80}" if given else "none"
        return f"host: expected one of {self._told}, got {got}; the server's option --allow-host allows others"

    def _allows(self, text: str) -> bool:
        found = _HOST.fullmatch(text.strip())
        if found is None:
            return False
        name = _name(found[1])
        return name in self._names or (self._has_addresses and _address(name) is not None)


def _name(text: str) -> str:
    """One of the ways to write a name, or an address without brackets and zone."""
    bare = text.removeprefix("[").removesuffix("]").lower()
    address = _address(bare)
    return bare.rstrip(".") if address is None else str(address)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def _is_unspecified(host: str) -> bool:
    address = _address(host)
    return address is not None and address.is_unspecified

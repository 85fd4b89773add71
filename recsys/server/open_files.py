"""The number of files, connections among them, that a process may have open."""

from __future__ import annotations

import contextlib
import logging
import resource
from collections.abc import Iterator

logger = logging.getLogger(__name__)

_OTHERS = 256
"""Files that are open beside connections: of the run, of libraries, of devices."""


@contextlib.contextmanager
def enough_files(connections: int) -> Iterator[None]:
    """Raises the process's soft limit for so many ``connections`` meanwhile, and warns where the hard one is lower."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _OTHERS
    if before == resource.RLIM_INFINITY or before >= needed:
        yield
        return
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if most < needed:
        logger.warning(
            "max_connections: expected at least %d files that may be open at once for %d connections, got a limit of "
            "%d; ulimit -n raises it", needed, connections, most,
        )  # fmt: skip
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))

"""How the ranks of one start find each other in a store that has the keys of earlier starts.

torchrun keeps its store when it starts processes again (unless TORCH_DISABLE_SHARE_RDZV_TCP_STORE is 1): what a process
group finds there would be addresses of ranks that have ended.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from ..recsys import RankError

_EVERY, _LONGEST = 0.02, 600.0  # seconds


def meeting(store: Any, rank: int, number: int) -> str:
    """A name for the keys of this start of ``number`` ranks in a ``torch.distributed.Store``, the same on all of them.

    Raises ``RankError`` on the first rank where others do not come.
    """
    own = uuid.uuid4().hex
    if rank:  # it asks by a word of its own, so that no answer is to an earlier start
        store.set(f"rank {rank} asks", own)
        name = store.get(f"answer to {own}").decode()
        store.set(f"{name} has {rank}", "")
        return name
    missing, answered, began = set(range(1, number)), set[bytes](), time.monotonic()
    while missing:
        for other in sorted(missing):
            if store.check([f"{own} has {other}"]):
                missing.discard(other)
            elif store.check([f"rank {other} asks"]) and (word := store.get(f"rank {other} asks")) not in answered:
                store.set(f"answer to {word.decode()}", own)  # perhaps of one that has ended: then another will ask
                answered.add(word)
        if missing and time.monotonic() - began > _LONGEST:
            raise RankError(f"devices: expected {number} ranks within {_LONGEST:.0f} s, got none of {sorted(missing)}")
        time.sleep(_EVERY if missing else 0)
    return own

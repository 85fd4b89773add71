"""The launches that select the largest values of rows; see ``device/select.py``."""

from __future__ import annotations

from ..device import select
from ..numbers import ceil_div, next_power_of_2
from ..plan.nearest import sections
from ..plan.tiles import Work
from .programs import Launch, Pointer, launch

VALUES_PER_WARP = 1024  # that are selected from
SELECT_REGISTERS = 128  # of a thread; with more of them a multiprocessor runs one program


def selections(
    num_rows: int, size: int, values: str, num_values: int, places: str, *,
    num_candidates: int | None = None, counted: Pointer | None = None, candidates: str | None = None, factor: int = 1,
    blocks: str | None = None, block: int = 0, num_vectors: int = 0,
) -> list[Launch]:  # fmt: skip
    """The launches of one selection of ``size`` a row: from sections of the candidates first, where they are too
    many."""

    def select_from(
        parts: int, num_candidates: int, out: str, candidates: str | None, factor: int, blocks: str | None
    ) -> Launch:
        section = ceil_div(num_candidates, parts)
        width = next_power_of_2(section)
        warps = min(max(width // VALUES_PER_WARP, 4), 32)
        return launch(
            select.select_kernel, (num_rows, parts), {"size": size, "block": block, "num_vectors": num_vectors},
            p_values=Pointer(values), p_counted=counted, p_places=Pointer(out),
            p_candidates=Pointer(candidates) if candidates else None, p_blocks=Pointer(blocks) if blocks else None,
            num_values=num_values, num_candidates=num_candidates, section=section, factor=factor,
            HAS_COUNTED=counted is not None, HAS_CANDIDATES=candidates is not None, HAS_BLOCKS=blocks is not None,
            WIDTH=width, work=Work(0, warps, 1, SELECT_REGISTERS if warps <= 8 else None),
        )  # fmt: skip

    num_candidates = num_values if num_candidates is None else num_candidates
    parts = sections(num_candidates)
    if parts == 1:
        return [select_from(1, num_candidates, places, candidates, factor, blocks)]
    first = select_from(parts, num_candidates, "sectioned", candidates, factor, None)
    return [first, select_from(1, parts * size, places, "sectioned", 1, blocks)]

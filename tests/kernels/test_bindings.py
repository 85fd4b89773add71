"""Kernels are launched by name: what their signatures name is what problems bind."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cce_minus.kernels import (
    AllItems,
    HardNegatives,
    InBatchNegatives,
    LogUniformNegatives,
    MixedNegatives,
    UniformNegatives,
)
from cce_minus.kernels.device import tables
from cce_minus.kernels.draws.draw import Draw, given_ids, on_rows
from cce_minus.kernels.launch import bindings
from cce_minus.kernels.launch.loss import backward_program, forward_program, pool_program
from cce_minus.kernels.launch.programs import Pointer, launch
from cce_minus.kernels.plan.buffers import sort_buffers
from cce_minus.kernels.plan.problem import KINDS, Choices, HistorySize, Problem, Shapes, Wanted, build_problem
from cce_minus.kernels.plan.tiles import Gpu

LAUNCH = Path(__file__).parents[2] / "kernels" / "launch"
V = 3000
DRAWS: dict[str, Draw] = {
    "grouped, one round": UniformNegatives(100, 16).draw(V),
    "grouped, rounds": UniformNegatives(700, 16).draw(V),
    "grouped, no blocks": UniformNegatives(2990, 16).draw(V),
    "independent": UniformNegatives(3, 1).draw(V),
    "independent, strata": UniformNegatives(128, 1).draw(V),
    "member": UniformNegatives(2000, 1).draw(V),
    "all": AllItems().draw(V),
    "lists": LogUniformNegatives(100, 16).draw(V),
    "mixed": MixedNegatives(UniformNegatives(20, 16), InBatchNegatives(16)).draw(V),
    "hard": HardNegatives(50, 20, 16).draw(V),
    "shared ids": given_ids((9,)),
    "row ids": given_ids((600, 9)),
    "buckets": given_ids((10, 40), 64),
    "grouped, on rows": on_rows(UniformNegatives(100, 16).draw(50 * V), 50 * V),
    "lists, on rows": on_rows(LogUniformNegatives(100, 16).draw(50 * V), 50 * V),
    "hard, on rows": on_rows(HardNegatives(50, 20, 16).draw(50 * V), 50 * V),
}


def problem(draw: Draw, **options: Any) -> Problem:
    shapes = Shapes(600, 40, V, "float16", "float32", options.pop("bias", "float32"), None, Gpu(132, 90))
    choices = Choices(options.pop("softcap", None), True, -100, options.pop("scale", False), None, "uniform", False)
    choices = replace(choices, correction=options.pop("correction", "uniform"))
    history = options.pop("history", None)
    return build_problem(replace(shapes, history=history), choices, draw, wanted=options.pop("wanted", Wanted()))


def test_every_mode_is_here():
    assert {draw.mode for draw in DRAWS.values()} == set(KINDS)


@pytest.mark.parametrize("name", DRAWS)
def test_signatures_name_what_problems_bind(name: str):
    """A launch raises for a name that its kernel has and nothing binds, and for one that the kernel does not have."""
    for options in ({}, {"bias": None}, {"correction": "weighted"}, {"history": HistorySize(3, 9)}, {"scale": True}):
        p = problem(DRAWS[name], **options)
        backward = backward_program(p, 1, True, bool(sort_buffers(p)))
        programs = [forward_program(p), backward, *([pool_program(p)] if p.chooses else [])]
        bound = bindings.tile_bindings(p) if p.tiled else bindings.gather_bindings(p)
        for each in (launched for program in programs for launched in program.launches):
            for argument, value in each.arguments.items():
                assert not isinstance(value, Pointer) or argument.startswith("p_")
                # arrays that a problem does not have are bound as None: a name is never left out
                assert argument in bound or argument in OWN, f"{each.kernel.fn.__name__}: {argument}"


# what launches of one kernel say of themselves, beside what all of a problem's kernels share
OWN = {
    *("row_programs", "item_programs", "round_programs", "group_programs", "item_keys", "round_keys", "item_halves"),
    *("round_halves", "row_halves", "num_blocks", "groups_per_round", "parts_per_group", "block_shift", "block_b"),
    *("BLOCK", "VISIT_BLOCK", "SORTED_SLOTS", "PERMUTES_ITEMS", "SHUFFLE", "ROUND_HALVES", "slots", "rounds", "block"),
    *("drawn_blocks", "last_drawn", "first_column", "num_columns", "DRAWN_ONLY", "FULL", "SPLIT", "PART", "BLOCK_M"),
    *("BLOCK_B", "TILE_M", "BLOCK_P", "HAS_KNOWN", "p_grad_lse", "grad_loss_stride", "BY_SLOT", "HAS_GRAD_LSE"),
    *("splits", "num_candidates", "SOURCE", "LOOKUP", "LANES", "ITEMS", "EACH", "num_keys", "num_starts", "unit"),
    *("num_places", "columns", "halves", "total", "DOMAIN", "p_slot_ends", "strata", "width", "shift", "b", "HAS_ENDS"),
    *("HALVES", "p_weights", "num_draws", "columns_per_pass", "p_scores", "blocks", "p_sorted_places", "passes"),
    *(
        "draws_per_pass",
        "LOOKS_UP",
        "p_ends",
        "first_key",
        "STEP",
        "TILES",
        "p_first",
        "p_end",
        "num_groups",
        "num_users",
        "num_known",
        "p_tiles",
        "num_tiles",
        "TILE",
        "TOGETHER",
    ),
}


def test_a_launch_takes_no_other_names():
    p = problem(DRAWS["all"])
    whole: dict[str, Any] = {"p_sorted_keys": Pointer("a"), "p_starts": Pointer("b"), "num_keys": 1, "unit": 1}
    launch(tables.segment_starts_kernel, (1,), bindings.bindings(p), **whole, num_starts=2, BLOCK=4)
    with pytest.raises(TypeError, match="num_starts"):
        launch(tables.segment_starts_kernel, (1,), {}, **whole, BLOCK=4)
    with pytest.raises(TypeError, match="surplus"):
        launch(tables.segment_starts_kernel, (1,), {}, **whole, num_starts=2, BLOCK=4, surplus=1)


def test_no_launch_passes_more_than_three_positional_arguments():
    calls = [
        node
        for path in sorted(LAUNCH.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "launch"
    ]
    assert len(calls) > 15
    assert all(len(call.args) <= 3 and not any(isinstance(a, ast.Starred) for a in call.args) for call in calls)


@pytest.mark.parametrize("name", DRAWS)
def test_gradients_that_nobody_wants_are_not_launched_for(name: str):
    """Without the items' gradients a backward is one launch on rows, and nothing of the table's size is allocated."""
    from cce_minus.kernels.plan.buffers import backward_buffers

    whole, frozen = problem(DRAWS[name]), problem(DRAWS[name], wanted=Wanted(weight=False, bias=False))
    assert len(backward_program(frozen, 1, True).launches) == 1 < len(backward_program(whole, 1, True).launches)
    sizes = {buffer.name: buffer.size for buffer in backward_buffers(frozen)}
    assert sizes["item_grad"] == sizes["bias_grad"] == sizes["part_grad"] == 0
    assert sizes["scratch"] < 10 * 600 + 100 < V * 40

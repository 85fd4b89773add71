"""Triton device code, its launchers on torch tensors, and the samplers.

    errors, numbers <- draws <- negatives <- plan <- launch -> device

``negatives``: what a user chooses. ``draws``: which items are drawn, the contract that every implementation follows
bit for bit. ``plan``: the static numbers of a call. ``launch``: kernels by name, built once. ``device``: Triton code.

The words of the code, and a step's tables in a figure: N = 6 rows, of which row 3 is ignored, groups of G = 2 rows,
blocks of L = 2 positions, S = 2 slots a group, V = 9 items.

    row        a hidden state with a target                    0    1    2   (3)   4    5
    place      where the permutation puts a row that counts:   places 0 1 | 2 3 | 4   hold rows 5 1 | 0 4 | 2
    group      G places side by side, which share candidates          g 0   g 1   g 2
    position   where the item permutation puts an item:        positions 0 1 | 2 3 | 4 5 | 6 7 | 8
    block      L positions side by side                               b 0   b 1   b 2   b 3   (sits out)
    slot       one of the S blocks of a group's candidates     g 0 takes b 2 b 0, g 1 takes b 1 b 3
    round      groups between which no block comes twice       g 0 and g 1 are round 0, g 2 is round 1
    visit      a group that drew a block, seen from the block  b 0 is visited by g 0, and in round 1 by g 2
    stratum    a range of positions, or of slots of a weighted draw, from which a row or group takes some
    list       candidates of a group as ids, which may repeat: made of parts
    part       columns of a list that one sampler draws; or what one program computed of a split sum

A kernel's own "slot" numbers (``slot_row``, ``slot_peak``) are places, padded to whole tiles.
"""

from .draws.permutation import fold_seed
from .errors import ArgumentError, ArgumentTypeError, ArgumentValueError
from .negatives.drawn_ids import negative_ids
from .negatives.history import History, shard_user_items, user_items
from .negatives.samplers import (
    AllItems,
    HardNegatives,
    InBatchNegatives,
    LogUniformNegatives,
    MixedNegatives,
    PopularityNegatives,
    UniformNegatives,
)

__all__ = [
    "AllItems",
    "ArgumentError",
    "ArgumentTypeError",
    "ArgumentValueError",
    "HardNegatives",
    "History",
    "InBatchNegatives",
    "LogUniformNegatives",
    "MixedNegatives",
    "PopularityNegatives",
    "UniformNegatives",
    "fold_seed",
    "negative_ids",
    "shard_user_items",
    "user_items",
]

"""The options of a run that say which loss it trains with."""

from __future__ import annotations

from dataclasses import dataclass

from .data_options import option
from .loss_choices import NUM_NEGATIVES
from .model_options import ModelOptions


@dataclass(frozen=True)
class LossOptions(ModelOptions):
    """The options of the groups Data, Model and Loss, which `TrainConfig` checks."""

    loss: str = option(
        "softmax",
        "Loss",
        "softmax: cross-entropy over sampled negatives (CCE-) or all items. bce: binary cross-entropy (BCE with one "
        "negative, BCE+ with more). gbce: bce calibrated for its sampling rate. sce: cross-entropy in buckets of "
        "positions and items near each other.",
    )
    negatives: str = option(
        "auto",
        "Loss",
        "uniform, popularity or log-uniform: drawn so (bce: these; gbce: uniform). all: every item. in-batch: the "
        "targets of a group's other positions. mixed: uniform and in-batch together. hard: the best-scoring of a "
        "uniform pool. auto: uniform with another loss or where an option of drawing is given, else all, or as many "
        "uniform ones as cost about a fifth of the model's time.",
    )
    num_negatives: int = option(
        0,
        "Loss",
        "Drawn negatives for each position; of mixed the uniform ones, of hard those kept of the pool. 0: as many as "
        f"auto chooses, else {NUM_NEGATIVES}.",
    )
    pool_size: int = option(
        1024, "Loss", "hard: uniformly drawn items of a group, of which the best-scoring are its negatives."
    )
    popularity_power: float = option(
        0.75, "Loss", "popularity: power of an item's training count that its probability is proportional to."
    )
    frequency_rate: float = option(
        0.01,
        "Loss",
        "in-batch, mixed: weight of a batch in the running estimate of how often each item is a target, which "
        "corrects these negatives.",
    )
    logq_correction: bool = option(
        True,
        "Loss",
        "Correct sampled negatives by the probability with which they are drawn; without it the loss is the plain "
        "sampled softmax.",
    )
    group_size: int = option(
        128,
        "Loss",
        "Positions that share one draw of negatives: 16, 32, 64, 128, 256, or 1 for independent uniform draws.",
    )
    shuffle_rows: bool = option(True, "Loss", "Spread neighbouring positions of one user over different groups.")
    gbce_t: float = option(0.75, "Loss", "gbce: calibration from 0 (bce) to 1 (that of the softmax).")
    n_buckets: int = option(0, "Loss", "sce: buckets; 0 takes 2 sqrt(N) for N positions with a target in a mean batch.")
    bucket_size_x: int = option(0, "Loss", "sce: positions in a bucket; 0 takes 2 sqrt(N).")
    bucket_size_y: int = option(256, "Loss", "sce: items in a bucket.")
    mix_x: bool = option(False, "Loss", "sce: make bucket centres of mixed hidden states instead of random directions.")
    impl: str = option(
        "auto", "Loss", "triton: the fused kernel. reference: plain framework code. auto: triton on CUDA."
    )

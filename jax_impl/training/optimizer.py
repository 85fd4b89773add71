"""The optimizers of a run: Optax's, without their learning rate, which comes with each step."""

from __future__ import annotations

from functools import cache

import optax

from ...recsys.run.optimizer_choices import BETAS, EPS, SMOOTHING


# Cached because Optax's transformations equal only themselves: with a new one each time, every run in one process would
# compile its steps again.
@cache
def make_optimizer(
    name: str, weight_decay: float, momentum: float, clip_norm: float
) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer ``name`` as a transformation to be multiplied by minus the learning rate, with the clipping
    of gradients before it.

    ``recsys.run.optimizer_choices`` has its numbers. Decay acts on every parameter.
    """
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    decay = optax.add_decayed_weights(weight_decay)
    if name == "adamw":
        return optax.chain(*clip, optax.scale_by_adam(*BETAS, eps=EPS), decay)
    scaled = {
        "adam": optax.scale_by_adam(*BETAS, eps=EPS),
        "adamax": optax.scale_by_adamax(*BETAS, eps=EPS),
        "rmsprop": optax.scale_by_rms(SMOOTHING, eps=EPS, eps_in_sqrt=False),
        "sgd": optax.trace(momentum),
    }
    return optax.chain(*clip, decay, scaled[name])

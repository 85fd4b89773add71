"""The working set of a step: the rows of a catalog that it reads, known before anything is computed."""

from __future__ import annotations

from torch import Tensor

from ...kernels.errors import ArgumentTypeError, ArgumentValueError
from ...kernels.negatives.arguments import check_history_arrays, check_ignore_index, check_own_log_q
from ...kernels.negatives.history import History
from ...kernels.negatives.samplers import Sampler
from ...kernels.numbers import as_index
from ...kernels.plan.group_draw import plan_group_draw
from ..loss.catalog_shard import CatalogShard
from ..loss.gathered_rows import is_read
from ..loss.list_operands import row_log_weights
from ..loss.ops import INTEGER_DTYPES
from ..loss.row_losses import comparable, history_specs, spec_of
from ..loss.seeds import seed_words
from ..loss.working_set import WorkingSet
from .shard_rows import checked_own_catalog, shard_working_set
from .step_rows import check_items, found_rows


def working_set(
    negatives: Sampler,
    target: Tensor,
    *,
    num_items: int,
    seed: int | Tensor | None,
    inputs: Tensor | None = None,
    ignore_index: int = -100,
    history: History | None = None,
    log_q: Tensor | None = None,
    catalog: CatalogShard | None = None,
    impl: str = "auto",
) -> WorkingSet:
    """The rows that a step with these negatives, targets and inputs reads of a table of ``num_items``.

        ws = working_set(negatives, target, num_items=V, seed=seed, inputs=inputs)
        rows = table(ws)                               # (T, D), of an ItemTable or any function of ws.ids
        hidden = encoder(rows, ws.inputs)              # what it embeds, by place
        loss = sampled_linear_cross_entropy(hidden, rows, ws.target, ws)

    The draw is that of ``sampled_linear_cross_entropy`` on the whole table with the same ``seed``, and loss and lse
    have the same bits; nothing of the catalog's size is made but a sampler's tables of probabilities, once. T is the
    number of drawn places, targets and inputs together, or ``num_items`` if that is less.

    Args:
        negatives: any sampler of part of the catalog but draws of single rows (``group_size`` 1).
        target: (...) integer items in [0, V), or ``ignore_index``.
        num_items: V.
        seed: as of the loss, which takes none beside a working set.
        inputs: integer items of any shape that the step embeds; negative ones name no row and stay as they are.
        ignore_index: target of rows to leave out; the loss must be given the same.
        log_q: (V,) as of the loss, which takes none beside a working set: the log of how often items are targets, where
            in-batch negatives are.
        history: as of the loss, which takes none beside a working set; of items in [0, V). Beside known probabilities
            it needs them of all V items.
        catalog: the table is this rank's part of one that ranks share, as of the loss, which is given it again; a call
            of all ranks. The rows are those of the shard that all ranks' rows touch, and T at most what is drawn there,
            twice the targets and inputs of one rank, and 1024: what an uneven catalog has more of on one shard raises
            on a CPU, and makes losses NaN on CUDA. ``inputs`` are of one shape on all ranks (`input_rows` gives what
            they embed), log_q and history the shard's.
        impl: "triton", "reference", or "auto": triton on CUDA.

    Raises ArgumentTypeError or ArgumentValueError, naming the argument: for draws of more than half the catalog, of
    which a working set would save nothing, and for negatives of single rows. On a CPU also for items that there are
    not; on CUDA such a target makes its row NaN.
    """
    num_items = as_index("num_items", num_items)
    check_ignore_index(ignore_index)
    for name, ids in (("target", target), ("inputs", inputs)):
        if ids is not None and (not isinstance(ids, Tensor) or ids.dtype not in INTEGER_DTYPES):
            got = str(ids.dtype) if isinstance(ids, Tensor) else type(ids).__name__
            raise ArgumentTypeError(name, "an integer tensor", got)
    if history is not None:
        check_history_arrays(history_specs(history) or (), tuple(target.shape))
    for name, other in (("inputs", inputs), ("log_q", log_q), *(("history", each) for each in history or ())):
        if isinstance(other, Tensor) and other.device != target.device:
            raise ArgumentValueError(name, f"device {target.device}, that of target", other.device)
    flat = comparable(target, ignore_index).reshape(-1).contiguous()
    own = checked_own_catalog(catalog, num_items)
    if own is not None:
        return shard_working_set(negatives, flat, target, seed, inputs, ignore_index, history, log_q, own, impl)
    check_own_log_q(negatives, None if log_q is None else spec_of("log_q", log_q), num_items)
    plan = plan_group_draw(negatives, len(flat), num_items, ignore_index)
    if is_read(flat):
        check_items("target", flat[flat != ignore_index], num_items, f"{ignore_index}, the ignore_index, or ")
        if inputs is not None:
            check_items("inputs", inputs[inputs >= 0], num_items, "a negative number or ")
    named = plan.num_drawn + len(flat) + (0 if inputs is None else inputs.numel())
    words = seed_words(seed, target.device, flat)
    found = found_rows(negatives, plan, flat, inputs, words, min(named, num_items), impl)
    log_weight, of_history = row_log_weights(found.rows.ids, negatives, num_items, log_q, history is not None)
    return WorkingSet(
        found.rows.ids, found.rows.count, found.target.view(target.shape), found.inputs, found.drawn, found.positions,
        log_weight, history, of_history, words, negatives, num_items, ignore_index,
    )  # fmt: skip

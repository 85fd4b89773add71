"""The named cases on which every implementation is compared with the oracle, each with its reason."""

from __future__ import annotations

from typing import Any

from tests.inputs import Case, Mode


def _case(mode: Mode, name: str, reason: str, n: int, v: int, k: int = 0, **fields: Any) -> Case:
    if mode == "grouped":
        fields.setdefault("group_size", 16)
    return Case(f"{mode}-{name}", reason, mode, n, v, num_negatives=k, **fields)


def _binary(mode: Mode, name: str, reason: str, n: int, v: int, k: int, **fields: Any) -> Case:
    return _case(mode, name, reason, n, v, k, **({"positive_weight": 1.0, "upstream": "loss"} | fields))


EVERYTHING: dict[str, Any] = {"has_bias": True, "softcap": 2.0, "logit_scale": 1.7}

# One argument a line would hide the list.
# fmt: off
CASES: tuple[Case, ...] = (
    # grouped: S = ceil(K/64) slots of L = ceil(K/S) items, NB = floor(V/L) blocks, floor(NB/S) groups a round
    _case("grouped", "ragged", "last group cut, two rounds, V not a multiple of L", 77, 301, 64),
    _case("grouped", "small_group", "fewer rows than one group", 5, 97, 32),
    _case("grouped", "one_row", "N = 1", 1, 97, 20),
    _case("grouped", "cut_block", "K not a multiple of 64: two slots, the last cut", 40, 333, 65, dim=50),
    _case("grouped", "one_negative", "K = 1: blocks of one item, as many as items", 40, 97, 1),
    _case("grouped", "every_item", "K = V: full catalog, no permutation", 40, 70, 70),
    _case("grouped", "beyond_catalog", "K > V is K = V; logits scaled", 20, 70, 100, logit_scale=0.5),
    _case("grouped", "all_but_one", "K = V - 1: one item sits out, one group a round", 40, 91, 90),
    _case("grouped", "few_blocks", "NB = 2 < S = 3: every group takes the first K positions", 40, 131, 130),
    _case("grouped", "many_rounds", "13 groups, two blocks: 7 rounds", 200, 150, 64),
    _case("grouped", "group_128", "the default group, two groups", 140, 200, 100, group_size=128, dim=128),
    _case("grouped", "group_256", "the largest group; weighted mean", 270, 200, 70, group_size=256,
          weighted=True, reduction="mean"),
    _case("grouped", "dim_100", "D no power of two; bias, softcap, scale", 50, 210, 70, dim=100,
          **EVERYTHING),
    _case("grouped", "dim_320", "D above one chunk, no power of two", 20, 80, 40, dim=320),
    _case("grouped", "no_shuffle", "rows in their own order; only the loss has a gradient", 50, 150, 64,
          shuffle_rows=False, upstream="loss"),
    _case("grouped", "all_ignored", "no row left: zeros, no NaN, the mean of nothing", 20, 97, 32,
          ignored="all", reduction="mean"),
    _case("grouped", "ignore_item", "ignore_index is a valid item, which still is a negative; bias", 90,
          40, 16,
          ignored="some", ignore_index=0, has_bias=True),
    _case("grouped", "popular", "one item is the target of most rows", 150, 150, 64, targets="popular"),
    _case("grouped", "dim_320_popular", "one wide chunk in half precision; popular targets, by chunks and alone", 150, 90, 40, dim=320,
          group_size=128, targets="popular"),
    _case("grouped", "hits_kept", "accidental hits stay in the denominator", 60, 60, 40,
          remove_accidental_hits=False),
    _case("grouped", "lse_only", "only lse has a gradient (z-loss); non-contiguous inputs, softcap", 40,
          150, 64,
          upstream="lse", contiguous=False, softcap=3.0),
    _case("grouped", "extreme", "logits of +-1e4", 40, 150, 64, logits="extreme"),
    _case("grouped", "confident", "1 - p_target of about 1e-6", 40, 300, 100, logits="confident"),
    # independent: up to K = 64, or with V < 8 K, one stratum with F = floor(V/K) rows a round
    _case("independent", "ragged", "many rounds, the last not full, V not a multiple of K", 40, 111, 20),
    _case("independent", "one_negative", "K = 1: V rows a round; bias, scale", 120, 97, 1, has_bias=True,
          logit_scale=1.7),
    _case("independent", "every_item", "K = V: full catalog; softcap", 40, 70, 70, softcap=2.0),
    _case("independent", "beyond_catalog", "K > V is K = V; hits kept", 20, 70, 100,
          remove_accidental_hits=False),
    _case("independent", "membership", "K > V/2: a membership mask; every option, ignored rows",
          50, 100, 60, ignored="some", **EVERYTHING),
    _case("independent", "all_but_one", "K = V - 1 under the membership mask", 30, 66, 65),
    _case("independent", "strata", "two strata of 300 positions of 601, 35 a row of each; bias, ignored rows",
          24, 601, 70, ignored="some", has_bias=True),
    _case("independent", "strata_popular", "two strata; a popular target that is drawn too, every option",
          40, 560, 70, dim=32, targets="popular", **EVERYTHING),
    _case("independent", "half", "K = V/2: the largest K without a mask", 30, 130, 65, dim=50),
    _case("independent", "dim_256", "D = 256, ignored rows", 20, 80, 16, dim=256, ignored="some"),
    _case("independent", "popular", "one popular target, ignored rows, weighted sum", 60, 60, 16,
          targets="popular", ignored="some", weighted=True, reduction="sum"),
    _case("independent", "lse_only", "only lse has a gradient; N = 1, D = 100, non-contiguous", 1, 97, 16,
          dim=100, upstream="lse", contiguous=False),
    _case("independent", "extreme_softcap", "logits of +-1e4 under a softcap of 30: tanh saturates", 40,
          150, 32,
          logits="extreme", softcap=30.0),
    # all: every item is a candidate
    _case("all", "ragged", "N and V multiples of nothing, D = 50", 77, 301, dim=50),
    _case("all", "one_item", "V = 1: no negative is left, m = 0", 5, 1),
    _case("all", "one_item_kept", "V = 1 with its hit kept: log(0 / 1)", 5, 1, remove_accidental_hits=False),
    _case("all", "two_items", "V = 2, N = 1", 1, 2),
    _case("all", "options", "bias, softcap, scale, ignored rows, weighted mean", 50, 210, dim=100,
          ignored="some", weighted=True, reduction="mean", **EVERYTHING),
    _case("all", "hits_kept", "the popular target also a negative; D = 128", 40, 130, dim=128,
          targets="popular", remove_accidental_hits=False),
    _case("all", "extreme", "logits of +-1e4; only lse has a gradient, non-contiguous", 40, 150,
          logits="extreme", upstream="lse", contiguous=False),
    # explicit ids: one list for all rows (K,), or a list a row (N, K)
    _case("shared_ids", "ragged", "K no multiple of 64, N of no tile", 77, 301, 130),
    _case("shared_ids", "one_negative", "K = 1, which is most rows' target: m = 0 there", 40, 97, 1,
          targets="popular", ids="popular"),
    _case("shared_ids", "repeated", "an id that occurs twice is two draws; ignored rows, weighted mean",
          50, 97,
          40, ids="repeated", ignored="some", weighted=True, reduction="mean"),
    _case("shared_ids", "empty_slots", "-1 among the ids; bias, softcap, scale", 50, 97, 40, dim=100,
          ids="empty_slots", **EVERYTHING),
    _case("shared_ids", "hits_kept", "repeated ids that are targets too, kept", 50, 10, 40, ids="repeated",
          remove_accidental_hits=False),
    _case("row_ids", "ragged", "K no multiple of 64, D = 50, non-contiguous", 77, 301, 33, dim=50,
          contiguous=False),
    _case("row_ids", "all_hits", "every draw is a hit: m = 0, only lse has a gradient", 30, 97, 16,
          ids="target"),
    _case("row_ids", "all_hits_kept", "every draw is a hit and stays", 30, 97, 16, ids="target",
          remove_accidental_hits=False),
    _case("row_ids", "popular", "one target of over 128 rows: a chunk of its positives is summed beforehand; bias",
          200, 12, 2, targets="popular", has_bias=True),
    _case("row_ids", "repeated", "few items with long lists of rows; popular target, D = 128", 100, 301, 40,
          dim=128, ids="repeated", targets="popular"),
    _case("row_ids", "empty_slots", "-1 among the ids, one row only of them; every option, ignored rows",
          50, 97,
          20, ids="empty_slots", ignored="some", weighted=True, reduction="sum", **EVERYTHING),
    # draws with unequal probabilities: lists of slots, an item several times in a list or in many
    _case("grouped", "popularity", "counts of 0 to 50, two groups: items in both lists and several times in one; D = 50", 40, 301, 64,
          dim=50, sampler="popularity"),
    _case("grouped", "popularity_options", "three blocks of 50 with two strata each; every option, popular targets, ignored rows",
          100, 97, 150, group_size=32, sampler="popularity", targets="popular", ignored="some", weighted=True, reduction="mean",
          **EVERYTHING),
    _case("grouped", "popularity_few_items", "9 items, K = 130 and 5 groups: chunks of one item are summed beforehand; hits kept",
          75, 9, 130, sampler="popularity", remove_accidental_hits=False, has_bias=True),
    _case("grouped", "popularity_split", "few rows: their lists are split; D above a chunk, no shuffle", 7, 700, 320, dim=272,
          sampler="popularity", shuffle_rows=False),
    _case("grouped", "popularity_one_negative", "K = 1; only the lse has a gradient", 40, 97, 1, sampler="popularity", upstream="lse"),
    _case("grouped", "log_uniform", "two strata, the first item 15% of the draws; softcap, ignored rows", 50, 97, 128,
          group_size=32, sampler="log_uniform", ignored="some", softcap=2.0),
    _case("grouped", "log_uniform_extreme", "logits of +-1e4", 40, 150, 64, sampler="log_uniform", logits="extreme"),
    _case("grouped", "log_uniform_uncorrected", "without its correction; D = 128", 130, 200, 100, group_size=128, dim=128,
          sampler="log_uniform", logq_correction=False),
    _case("grouped", "uniform_uncorrected", "uniform draws without correction, as other libraries' sampled softmax", 50, 210, 70,
          logq_correction=False),
    _case("shared_ids", "log_q", "known draw probabilities; repeated ids and hits, weighted mean", 50, 97, 40, ids="repeated",
          knows_q=True, weighted=True, reduction="mean"),
    _case("row_ids", "log_q", "known draw probabilities, empty slots; every option, ignored rows", 50, 97, 20, knows_q=True,
          ids="empty_slots", ignored="some", **EVERYTHING),
    # binary cross-entropy: one sigmoid a draw, a mean over the positive and the kept draws
    _binary("grouped", "bce_plus", "BCE+ with K no multiple of 64; bias, softcap, scale, ignored rows, weighted mean", 50, 333, 65,
            dim=50, ignored="some", weighted=True, reduction="mean", **EVERYTHING),
    _binary("grouped", "gbce", "gBCE, t = 0.75: alpha = 64 / 300; two groups, popular targets that are drawn too", 140, 301, 64,
            group_size=128, dim=128, targets="popular", positive_weight=1 - 0.75 * (1 - 64 / 300), gbce_t=0.75),
    _binary("grouped", "bce_split", "few rows: partial sums of split rows", 5, 700, 400),
    _binary("grouped", "bce_confident", "a target's term of 1e-10 beside negatives'", 40, 300, 100, logits="confident"),
    _binary("grouped", "bce_extreme", "logits of +-1e4: no overflow, whole steps of the sigmoid", 40, 150, 64, logits="extreme"),
    _binary("grouped", "bce_popularity", "lists, weighted sum", 50, 97, 70, group_size=32, sampler="popularity", weighted=True,
            reduction="sum", has_bias=True),
    _binary("grouped", "bce_log_uniform", "lists, one group of 128", 60, 150, 100, group_size=128, sampler="log_uniform", dim=100),
    _binary("independent", "bce", "SASRec's BCE: one negative; bias, scale", 120, 97, 1, has_bias=True, logit_scale=1.7),
    _binary("independent", "gbce_strata", "two strata; every option, a popular target", 40, 560, 70, dim=32, targets="popular",
            positive_weight=1 - 0.5 * (1 - 70 / 559), gbce_t=0.5, **EVERYTHING),
    _binary("independent", "bce_membership", "K > V/2: a membership mask", 50, 100, 60, ignored="some"),
    _binary("independent", "bce_every_item", "K = V: every item but the target, beta = 1 whatever t", 40, 70, 70, gbce_t=0.5),
    _binary("shared_ids", "bce", "repeated ids and hits, which are dropped", 50, 97, 40, ids="repeated", has_bias=True),
    _binary("row_ids", "bce_empty_slots", "-1 among the ids, one row only of them: the positive's term alone", 50, 97, 20,
            ids="empty_slots", ignored="some", weighted=True, reduction="sum", **EVERYTHING),
)
# fmt: on


def cases(*modes: Mode) -> list[Case]:
    """The cases of these modes, or all of them."""
    return [case for case in CASES if not modes or case.mode in modes]

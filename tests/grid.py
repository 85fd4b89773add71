"""What only ``make test-all`` runs: cells of grids whose kinds others show, most of them XLA programs to compile."""

from __future__ import annotations

import re

JAX_CASES_SHOWN = (
    "grouped-cut_block", "grouped-many_rounds", "grouped-dim_100", "grouped-ignore_item", "grouped-extreme",
    "independent-ragged", "independent-membership", "independent-strata_popular", "all-options", "all-one_item_kept",
    "shared_ids-empty_slots", "shared_ids-log_q", "row_ids-all_hits", "row_ids-empty_slots",
    "grouped-popularity_options", "grouped-log_uniform_extreme", "grouped-in_batch_options", "grouped-in_batch_all",
    "grouped-mixed", "grouped-mixed_weighted", "grouped-hard_all_options", "grouped-history_popularity", "all-history",
    "grouped-bce_plus", "grouped-gbce", "independent-gbce_strata", "row_ids-bce_empty_slots",
)  # fmt: skip

# (test, as in a node id, and the cells that wait; why not they)
WAITING = (
    (
        "test_jax_cases.py::test_reference",
        rf"(?!({'|'.join(JAX_CASES_SHOWN)})$)",
    ),  # one or two of each sampler and option
    ("test_ignored_rows.py::test_results_are", "UniformNegatives.*-(0|300)|AllItems.*-300"),  # few rows split the most
    ("test_nearest.py::test_jax", "blocks-triton"),  # PyTorch's launches the same kernels
    ("test_binary.py::test_gbce_is_the_papers", r"(0\.0|1\.0)-cce_minus\.jax_impl"),
    # runs: what is compiled differs by the model or the sampler, what is tested does not
    ("test_run.py::test_killed_run", "uniform"),  # a mixture's run has more to restore
    ("test_protocol.py::test_a_final_model_resumes", "jax"),
    ("test_models.py::test_", "jax-ligr"),
    ("test_side_information.py::test_items_that_training_has_not_seen", "jax"),
    ("test_study_runs.py::test_eager_training_learns", "jax"),
    (
        "test_objectives.py::test_twins_agree",
        "softmax-(all|popularity|log-uniform|in-batch|uncorrected)|bce-(uniform|log-uniform)|sce$",
    ),  # the six that stay have each loss and each source of negatives
    ("test_examples.py::test_example_learns", "flax"),
    ("test_examples.py::test_tutorial", "jax"),
    ("test_objectives.py::test_the_correction", "jax-(uniform|log-uniform|in-batch)"),
)


def waits(node: str) -> bool:
    """Whether a test, by its node id, is one of these."""
    test, _, cell = node.removesuffix("]").partition("[")
    return any(part in test and re.match(cells, cell) for part, cells in WAITING)

"""What only ``make test-all`` runs: cells of grids whose kinds others show, most of them XLA programs to compile."""

from __future__ import annotations

import re

# one or two of each mode, sampler and option, of what is computed by each row, group or list in its own way
JAX_CASES_SHOWN = (  # of its reference, where each is an XLA program to compile
    "grouped-cut_block", "grouped-ignore_item", "grouped-extreme", "independent-strata_popular", "all-options",
    "shared_ids-log_q", "row_ids-empty_slots", "grouped-popularity_options", "grouped-in_batch_options",
    "grouped-mixed_weighted", "grouped-hard_all_options", "grouped-history_popularity", "grouped-gbce",
)  # fmt: skip
KERNEL_CASES_SHOWN = (
    "grouped-cut_block", "grouped-many_rounds", "grouped-dim_100", "grouped-ignore_item", "grouped-extreme",
    "independent-ragged", "independent-membership", "independent-strata_popular", "all-options", "all-one_item_kept",
    "shared_ids-empty_slots", "shared_ids-log_q", "row_ids-all_hits", "row_ids-empty_slots",
    "grouped-popularity_options", "grouped-log_uniform_extreme", "grouped-in_batch_options", "grouped-in_batch_all",
    "grouped-mixed", "grouped-mixed_weighted", "grouped-hard_all_options", "grouped-history_popularity", "all-history",
    "grouped-bce_plus", "grouped-gbce", "independent-gbce_strata", "row_ids-bce_empty_slots",
    "grouped-ragged", "grouped-few_blocks", "grouped-dim_320", "grouped-popular", "grouped-hits_kept",
    "grouped-lse_only", "grouped-confident", "grouped-all_ignored", "grouped-low_bias", "grouped-gone",
    "grouped-all_gone", "grouped-not_finite", "grouped-gone_popularity", "grouped-history_hard",
    "grouped-bce_popularity", "grouped-bce_gone", "independent-history", "independent-gone", "shared_ids-gone",
    "row_ids-not_finite",
)  # fmt: skip


SHARDED_SHOWN = (  # in JAX
    "sharded-all_options", "sharded-few_items", "sharded-uniform_options", "sharded-uniform_one_each",
    "sharded-popularity", "sharded-in_batch_all", "sharded-mixed", "sharded-history_popularity", "sharded-rows_uniform",
    "sharded-rows_mixed",
)  # fmt: skip


WORKING_SETS_SHOWN = (  # in JAX: of uniform draws, lists, targets of a group and of all rows, mixtures, pools
    "grouped-cut_block", "grouped-bce_plus", "grouped-popularity_options", "grouped-in_batch_options",
    "grouped-in_batch_all", "grouped-mixed", "grouped-hard_all_options", "grouped-history",
    "grouped-history_popularity",
)  # fmt: skip


def but(*cells: str) -> str:
    """All cells but these, as patterns of whole ones."""
    return rf"(?!({'|'.join(cells)})$)"


# (test, as in a node id, and the cells that wait; why not the others)
WAITING = (
    ("test_jax_cases.py::test_reference", but(*JAX_CASES_SHOWN)),
    ("test_torch_cases.py::test_kernels[", but(*KERNEL_CASES_SHOWN)),
    ("test_torch_cases.py::test_kernels_in_float16", "independent|row_ids|shared_ids|grouped-(bce|log_uniform)"),
    ("test_jax_cases.py::test_kernels[", "independent-dim_256|grouped-(popularity_split|few_blocks|ignore_item)"),
    ("test_jax_modes.py::test_modes_change_nothing", but("uniform", "popularity")),
    ("test_jax_modes.py::test_nothing_is_transferred", but("uniform", "popularity", "scalable")),
    ("test_jax_seeds.py::test_draws_are_negative_ids", ".*=(70|200), "),
    ("test_jax_transforms.py::test_shard_map", ""),
    ("test_wanted_gradients.py::test_each_gradient_alone", "(independent|row ids|all)-triton"),
    ("test_drawn_ids.py::test_ids_recovered", "independent.*-triton"),
    ("test_architectures.py::test_kernels_compile", but("bfloat16-89")),
    ("test_scalable.py::test_jax[", but("mixed", "100_rows", "beyond_the_batch", "all_ignored")),
    ("test_scalable.py::test_torch", "(plain|48_rows|300_rows|few_rows_count|ignore_item|one_item)-triton"),
    ("test_scalable.py::test_frameworks_agree", but("everything", "mixed")),
    ("test_scalable.py::test_jax_kernels_have", but("everything")),
    ("test_scalable_calls.py::test_jax_transformations", ""),
    ("test_jax_sharded.py::test_reference", but(*SHARDED_SHOWN)),
    ("test_jax_sharded.py::test_kernels", but("sharded-uniform_options", "sharded-mixed")),
    ("test_working_set_losses.py::test_losses_and_gradients[", rf"(?!({'|'.join(WORKING_SETS_SHOWN)})-).*-jax-"),
    ("test_scaling.py::test_rows_of_two_ranks", "strong-.*"),
    ("test_list_passes.py::test_several_passes", "mixed"),
    ("test_scalable_calls.py::test_whatever_ignored", "False|.*-all|.*-most"),
    ("test_ignored_rows.py::test_results_are", "UniformNegatives|AllItems.*-300"),  # few rows split the most
    ("test_nearest.py::test_jax", "blocks-triton"),  # PyTorch's launches the same kernels
    (
        "test_working_set.py::test_losses_and_gradients[",
        but(
            "grouped-(ragged|cut_block|group_128|dim_100|ignore_item|all_ignored|popular|bce_plus)-torch-triton",
            "grouped-(cut_block|gbce)-.*",
        ),
    ),
    ("test_ranking.py::test_the_definition", "(wide|sections|one|ranks).*jax"),
    ("test_binary.py::test_gbce_is_the_papers", r"(0\.0|1\.0)-cce_minus\.jax_impl"),
    ("test_oracle.py::test_another_order", but("grouped-.*float32")),
    ("test_loss_losses.py::test_rows_and_table", ""),  # of every loss; test_loss.py shows one
    # runs: what is compiled differs by the model or the sampler, what is tested does not
    ("test_run.py::test_killed_run", "jax"),
    ("test_run.py::test_resumed_run_equals", "jax"),
    ("test_run.py::test_bf16", "jax"),
    ("test_run.py::test_early_stopping", "jax"),
    ("test_training_options.py::test_portions_change_nothing", "jax-bert4rec"),
    ("test_training_options.py::test_averages_are_validated", "jax"),
    ("test_training_options.py::test_accumulated_batches", "jax"),
    ("test_protocol.py::test_a_final_model_resumes", "jax"),
    ("test_models.py::test_", "jax-ligr"),
    ("test_models.py::test_models_learn", "jax"),
    ("test_models.py::test_resumed_runs", "jax"),
    ("test_demo.py::test_a_model_that_learned_nothing", ""),
    ("test_steps.py::test_losses_and_updates", "ligr|independent|all"),
    ("test_side_information.py::test_items_that_training_has_not_seen", "jax"),
    ("test_side_information.py::test_the_projection_learns", but("jax-options0")),
    ("test_side_information.py::test_a_resumed_run", ""),
    ("test_seen_items.py::test_no_users_times_items", "jax"),
    ("test_item_rows.py::test_rows_are_what", "jax-(sasrec|ligr)"),
    ("test_study_runs.py::test_eager_training_learns", "jax"),
    ("test_study_runs.py::test_epochs_of_the_training_commands", "jax"),
    ("test_days.py::test_a_chain", "jax"),
    ("test_grouped_batches.py::test_frameworks_train_alike", but("accumulated", "rows alone")),
    ("test_grouped_batches.py::test_a_resumed_run", but("torch-gathered")),
    ("test_objectives.py::test_twins_agree", but("softmax-mixed", "gbce-uniform", "sce-mixed")),  # each loss
    ("test_objectives.py::test_the_correction", "jax-(uniform|log-uniform|in-batch|popularity)"),
    ("test_export.py::test_programs_of_every_model", "jax-bert4rec"),
    ("test_examples.py::test_example_learns", "flax"),
    ("test_notebooks.py::test_the_tutorial", "jax"),
    ("test_examples.py::test_a_search", "jax"),
)


def waits(node: str) -> bool:
    """Whether a test, by its node id, is one of these."""
    test, bracket, cell = node.removesuffix("]").partition("[")
    return any(part in test + bracket and re.match(cells, cell) for part, cells in WAITING)

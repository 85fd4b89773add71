"""Training steps on catalogs of up to hundreds of millions of items, which move only the rows that they touch.

python -m benchmarks.catalog run        # on one GPU; rows go to benchmarks/results/catalog.csv
python -m benchmarks.catalog whole --items 100000000    # the commands from end to end; catalog_runs.csv
python -m benchmarks.catalog table      # the same as a Markdown table
python -m benchmarks.catalog plot       # benchmarks/results/catalog_step.png
"""

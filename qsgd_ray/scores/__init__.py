"""Verdicts on rows of others: tables, files, and runs of Ray Tune, Optuna, MLflow and W&B in; verdicts and a page out.

`judge(table, baseline=, margin=)` is the way in. The rule is that of a study; here nothing is trained.
"""

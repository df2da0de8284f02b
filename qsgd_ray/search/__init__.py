"""Search each arm's settings by Ray Tune and Optuna, with one budget for all."""

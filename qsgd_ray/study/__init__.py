"""Run a study from its search to its rows; run one trial again, bit for bit."""

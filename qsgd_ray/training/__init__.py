"""Train one model: the loop, its state, its checkpoints and the processes that share it; nothing of Ray."""

"""Exact statevectors of batches of circuits in torch, with gradients; `simulate` is the way in."""

"""The choice of an engine: work and costs of each, and the backends by name."""

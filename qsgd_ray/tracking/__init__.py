"""Studies shown by TensorBoard and MLflow: rows and events in, their own files out. Nothing depends on it."""

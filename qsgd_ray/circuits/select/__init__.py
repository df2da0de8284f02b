"""Choose the fastest backend that fits, by a cost model."""

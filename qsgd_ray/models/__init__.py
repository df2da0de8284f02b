"""Models that the workloads train."""

"""Measure speed: engines timed side by side in one process, after equal answers; rows and a table out."""

"""Speed, measured: engines timed side by side in one process; medians and ratios out, as rows and a table."""

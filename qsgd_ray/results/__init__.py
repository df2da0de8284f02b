"""The results of a study as typed tables: written row by row, read whole and checked.

`read(where)` gives the tables of a folder or of an object store; docs/results.md explains every column.
"""

from qsgd_ray.results.results import Results, StudyTables, read_results
from qsgd_ray.results.schema import TIME_COLUMNS

read = read_results

__all__ = ["TIME_COLUMNS", "Results", "StudyTables", "read", "read_results"]

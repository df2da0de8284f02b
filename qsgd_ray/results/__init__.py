"""Results of a study as typed tables: written row by row, read whole and checked.

`read(where)` returns the tables of a folder or of an object store; `Results` is the open handle that a study writes
through. docs/results.md explains every column.
"""

from qsgd_ray.results.results import Results, read
from qsgd_ray.results.schema import SCHEMA_VERSION, TIME_COLUMNS
from qsgd_ray.results.tables import StudyTables

__all__ = ["SCHEMA_VERSION", "TIME_COLUMNS", "Results", "StudyTables", "read"]

"""Numbers of settings: whole ones, real ones and switches, no type taken for another; and their largest values."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

# True is no 1 and "4" is no 4: what was meant is not known.
Whole = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]

# The largest whole number that a column of the results holds (results/schema.py).
MOST = 2**31 - 1
# Lists of seeds, arms and curves: each item is checked, and planned, one by one.
MOST_ITEMS = 4096
# Settings of a map: each is checked as arm and workload when the study is constructed.
MOST_SETTINGS = 4096
# Days: longer waits overflow the clocks of threads.
MOST_SECONDS = 1e6
MOST_PROCESSES = 65_536

# Below it a float tells one whole number from the next.
Number = Annotated[Whole, Field(ge=-(2**53), le=2**53)]
Count = Annotated[Whole, Field(ge=1, le=MOST)]
Seed = Annotated[Whole, Field(ge=0, lt=2**32)]

"""Problems of settings, as this package's validators raise them and as pydantic lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from pydantic_core import InitErrorDetails, PydanticCustomError

# The type of the problems that this package finds itself; all others are pydantic's.
REFUSED = "allowed"
# The kinds of shipped tasks, and the tag of all others. pydantic puts them into the location of a task's fields, from
# where they are taken out again.
OWN = "own"
TASK_KINDS = ("text", "llm", OWN)


def refusal(allowed: str) -> PydanticCustomError:
    """Return the error that a validator raises; `allowed` says what would be right, in words."""
    return PydanticCustomError(REFUSED, "{allowed}", {"allowed": allowed})


def error_details(problems: Sequence[Any]) -> list[InitErrorDetails]:
    """Return problems as `ValidationError.errors` lists them in the form that an error can be made of again."""
    details = [
        {
            # pydantic knows its own types by their names; another one has to come as an object.
            "type": refusal(problem["ctx"]["allowed"]) if problem["type"] == REFUSED else problem["type"],
            "loc": problem["loc"],
            "input": problem["input"],
        }
        | ({"ctx": problem["ctx"]} if "ctx" in problem else {})
        for problem in problems
    ]
    return cast(list[InitErrorDetails], details)

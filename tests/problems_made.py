"""Word problems of a few tokens, for tests on the tiny model."""

from qsgd_ray.workloads.problem import Problem


def some_problems(n: int) -> list[Problem]:
    """Sums, no two alike and of many lengths."""
    return [
        Problem(f"{'how much is ' * (i % 3)}{i}+{i}?", f"{i}+{i}={2 * i}\n#### {2 * i}", str(2 * i)) for i in range(n)
    ]

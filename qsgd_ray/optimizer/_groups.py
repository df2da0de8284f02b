"""Parameters by group: the optimizers that an arm names and a model in; the parameters of each group out."""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import Tensor, nn

from qsgd_ray.config import Groups, Optimizer, StudyError
from qsgd_ray.config.optimizer import WORDS


def parameters_of(optimizer: Optimizer | Groups, model: nn.Module, field: str) -> dict[str, list[Tensor]]:
    """Return the trained parameters of each group, in the order of the model.

    Args:
        optimizer: the one, whose group has no name, or several by group.
        model: its parameters that require a gradient are trained.
        field: the field that names the optimizers, for the error.

    Raises:
        StudyError: no parameter is trained, a group has none, or a parameter is of two groups.
    """
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not trained:
        raise StudyError(f"{field}: got a model without trained parameters; allowed: at least one")
    if isinstance(optimizer, Optimizer):
        return {"": list(trained.values())}
    groups: dict[str, list[Tensor]] = {name: [] for name, _ in optimizer.members}
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding | nn.EmbeddingBag)}
    own = {name: one.parameters or () for name, one in optimizer.members if name not in WORDS}
    for name, parameter in trained.items():
        matching = [group for group, patterns in own.items() if any(fnmatchcase(name, each) for each in patterns)]
        if len(matching) > 1:
            raise StudyError(
                f"{field}: got {name} in {' and '.join(matching)}; allowed: patterns that share no parameter"
            )
        word = _word(parameter, id(parameter) in embeddings)
        groups[matching[0] if matching else word if word in groups else "rest"].append(parameter)
    for group, parameters in groups.items():
        if not parameters:
            names = ", ".join(list(trained)[:4])
            raise StudyError(
                f"{field}.{group}: got a group without parameters; allowed: one that has some of {names}, ..."
            )
    return groups


def _word(parameter: Tensor, is_embedding: bool) -> str:
    if is_embedding:
        return "embeddings"
    return "vectors" if parameter.ndim < 2 else "matrices" if parameter.ndim == 2 else "rest"

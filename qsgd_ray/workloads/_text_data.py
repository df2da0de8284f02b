"""Generator of the synthetic text task: a `TextTask` comes in, the tokens and labels of a split go out.

A split of n sequences holds every class equally often (to within one), in random order. The evidence in a sequence
shows its label, except in round(difficulty * n) of them, chosen at random: there it shows each class equally often
whatever the label is. So the best possible accuracy is 1 - difficulty * (1 - 1 / n_classes), on every split to within
one sequence, and at difficulty 1 it is chance. A sequence of `length` tokens below `vocabulary` shows class c so:

motif  Each class has one motif of three tokens of the lower half of the vocabulary. Motif c stands at a random place in
       a uniformly random background in which no motif occurs.
order  The first m tokens of the vocabulary are markers, m the least number with m! >= n_classes. Each occurs once, at
       random places, and reading them from left to right gives the c-th permutation in lexicographic order. The
       background is uniform over the other tokens.
match  The first n_classes tokens are distinct keys, drawn without replacement. The last token repeats the key at
       position c. The tokens between are uniform over the vocabulary.

Arrays are int64. Letters in shapes: n sequences, l tokens a sequence, c classes.
"""

from __future__ import annotations

import math
from itertools import islice, permutations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qsgd_ray.config import TextTask
from qsgd_ray.random_keys import named_entropy

_Tokens = NDArray[np.int64]
_MOTIF_LENGTH = 3


def make_split(settings: TextTask, split: Literal["train", "validation", "test"]) -> tuple[_Tokens, _Tokens]:
    """Generate tokens (n, l) and labels (n,): a pure function of the data seed, the split and its own size."""
    n = getattr(settings, f"{split}_size")
    rng = np.random.default_rng(named_entropy("text", settings.data_seed, settings.family, split))
    labels = rng.permutation(np.arange(n) % settings.n_classes)
    n_redrawn = round(settings.difficulty * n)
    shift = np.zeros(n, dtype=np.int64)
    shift[:n_redrawn] = np.arange(n_redrawn) % settings.n_classes
    shown = (labels + rng.permutation(shift)) % settings.n_classes
    return _FAMILIES[settings.family](settings, shown, rng), labels


def _motifs(settings: TextTask) -> _Tokens:
    """Return the motif of each class (c, 3): the same for every split of a data seed."""
    half = settings.vocabulary // 2
    rng = np.random.default_rng(named_entropy("motifs", settings.data_seed))
    codes = rng.choice(half**_MOTIF_LENGTH, size=settings.n_classes, replace=False)
    return np.stack(np.unravel_index(codes, (half,) * _MOTIF_LENGTH), axis=1)


def _class_orders(n_classes: int) -> _Tokens:
    """Return the order of the m markers in each class (c, m)."""
    n_markers = next(m for m in range(2, n_classes + 2) if math.factorial(m) >= n_classes)
    return np.array(list(islice(permutations(range(n_markers)), n_classes)))


def _motif(settings: TextTask, shown: _Tokens, rng: np.random.Generator) -> _Tokens:
    """Draw sequences (n, l) of the family "motif" that show the classes `shown` (n,)."""
    n, half = len(shown), settings.vocabulary // 2
    motifs = _motifs(settings)
    tokens = rng.integers(settings.vocabulary, size=(n, settings.length))
    start = rng.integers(settings.length - _MOTIF_LENGTH + 1, size=n)
    planted = start[:, None] + np.arange(_MOTIF_LENGTH)
    np.put_along_axis(tokens, planted, motifs[shown], axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(tokens, _MOTIF_LENGTH, axis=1)
    row, place = np.nonzero((windows[:, :, None] == motifs).all(-1).any(-1))
    stray = place != start[row]
    row, place = row[stray], place[stray]
    # A motif elsewhere loses its end that lies outside the planted one, to a token that is in no motif.
    place = np.where(place < start[row], place, place + _MOTIF_LENGTH - 1)
    tokens[row, place] = rng.integers(half, settings.vocabulary, size=len(row))
    return tokens


def _order(settings: TextTask, shown: _Tokens, rng: np.random.Generator) -> _Tokens:
    """Draw sequences (n, l) of the family "order" that show the classes `shown` (n,)."""
    orders = _class_orders(settings.n_classes)
    n, n_markers = len(shown), orders.shape[1]
    tokens = rng.integers(n_markers, settings.vocabulary, size=(n, settings.length))
    places = rng.permuted(np.tile(np.arange(settings.length), (n, 1)), axis=1)[:, :n_markers]
    np.put_along_axis(tokens, np.sort(places, axis=1), orders[shown], axis=1)
    return tokens


def _match(settings: TextTask, shown: _Tokens, rng: np.random.Generator) -> _Tokens:
    """Draw sequences (n, l) of the family "match" that show the classes `shown` (n,)."""
    n = len(shown)
    tokens = rng.integers(settings.vocabulary, size=(n, settings.length))
    keys = rng.permuted(np.tile(np.arange(settings.vocabulary), (n, 1)), axis=1)[:, : settings.n_classes]
    tokens[:, : settings.n_classes] = keys
    tokens[:, -1] = keys[np.arange(n), shown]
    return tokens


_FAMILIES = {"motif": _motif, "order": _order, "match": _match}

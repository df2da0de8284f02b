"""The paper's claims (arXiv:2511.01918), checked: result tables in, one `Claim` for each that the study names out.

A claim with a figure is measured as the paper puts it, over the confirmation's pairs of runs, with a 95 % interval:

- supported: the interval excludes "no effect", and either holds the claimed figure or lies beyond it;
- contradicted: the interval excludes the claimed figure, on the side of less or of the other sign;
- inconclusive: it holds both, or there are fewer than `verdict.MIN_PAIRS` pairs;
- not measured: the study has nothing to measure it by.

The intervals are of one claim each, not corrected for the number of claims. `_claims_in_words.py` has C6 and C7, which
are claims in words, and what they are taken to say.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qsgd_ray.analysis import statistics
from qsgd_ray.analysis._claim_pairs import change_of_epochs, change_of_time, column_pairs, rows_of_both
from qsgd_ray.analysis._claims_in_words import check_lambdas, check_qubits
from qsgd_ray.analysis.claim import Claim, Finding, not_measured, with_finding
from qsgd_ray.analysis.pairs import pair_by_seed
from qsgd_ray.analysis.statistics import Estimate, Floats
from qsgd_ray.config import ClaimId
from qsgd_ray.results import StudyTables


def check_claims(tables: StudyTables) -> tuple[Claim, ...]:
    """Return the claims that the study names (`Study.claims`: the arm that stands for each), in the paper's order."""
    named = tables.study.claims
    return tuple(_CHECKS[claim_id](tables, named[claim_id]) for claim_id in _CHECKS if claim_id in named)


def _check_accuracy(tables: StudyTables, arm: str) -> Claim:
    differences = pair_by_seed(*rows_of_both(tables, arm), tables.study.confirm.seeds).differences
    text = "final accuracy at lambda = 0.5 is 2.3 points above Adam's"
    draft = Claim("C1", text, arm, Finding.NOT_MEASURED, "", "points", 0.023)
    return with_finding(draft, _mean_difference(differences), len(differences))


def _check_epochs(tables: StudyTables, arm: str) -> Claim:
    text = "lambda = 0.5 needs 37.8 % fewer epochs to the target (4.6 against 7.4)"
    draft = Claim("C2", text, arm, Finding.NOT_MEASURED, "", claimed=-0.378)
    return with_finding(draft, *change_of_epochs(tables, arm))


def _check_training_loss(tables: StudyTables, arm: str) -> Claim:
    text = "mean training loss on GSM8K after an epoch falls from 0.2188 to 0.2097"
    draft = Claim("C3", text, arm, Finding.NOT_MEASURED, "", "nats", -0.0091)
    if tables.study.workload.kind != "llm":
        return not_measured(draft, "It speaks of a language model: studies/paper_llm.py measures it.")
    differences = statistics.paired_differences(*column_pairs(tables, arm, "mean_train_loss"))
    return with_finding(draft, _mean_difference(differences), len(differences))


def _check_epoch_time(tables: StudyTables, arm: str) -> Claim:
    text = "an epoch takes about 35 % longer than Adam's"
    of_arm, of_baseline = column_pairs(tables, arm, "wall_s", per="epochs_run")
    draft = Claim("C4", text, arm, Finding.NOT_MEASURED, "", claimed=0.35)
    return with_finding(draft, statistics.relative_change(of_arm, of_baseline), len(of_arm))


def _check_total_time(tables: StudyTables, arm: str) -> Claim:
    text = "the total time to the target is 16 % lower"
    draft = Claim("C5", text, arm, Finding.NOT_MEASURED, "", claimed=-0.16)
    # A miss has taken at least its whole run.
    return with_finding(draft, *change_of_time(tables, arm, "seconds_to_target", lambda row: float(row["wall_s"])))


def _mean_difference(differences: Floats) -> Estimate | None:
    """Return the mean with Student's interval, in the claim's own unit; None without a pair."""
    if not len(differences):
        return None
    return Estimate(float(np.mean(differences)), statistics.difference_interval(differences))


_CHECKS: dict[ClaimId, Callable[[StudyTables, str], Claim]] = {
    "C1": _check_accuracy,
    "C2": _check_epochs,
    "C3": _check_training_loss,
    "C4": _check_epoch_time,
    "C5": _check_total_time,
    "C6": check_lambdas,
    "C7": check_qubits,
}

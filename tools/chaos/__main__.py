"""Strike a small study with seeded faults, and compare its rows with those of an undisturbed one.

    python tools/chaos --faults 100 --seed 1        # or: make chaos

Faults: SIGKILL of the driver, of each of Ray's processes, of workers, trials and circuit actors, and of whoever writes
in mid-write; SIGINT, SIGTERM and SIGHUP; a full and a read-only disk; a second driver; a clock that jumps; connections
to the pool cut, its actor stopped. Every second study goes on from checkpoints. After each fault the command must have
ended with one line and left no process, or go on; in the end the rows are those of the undisturbed study without
checkpoints, each once. Exit status 1 where anything is otherwise.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from faults import all_faults
from rounds import FAULTS_A_ROUND, Round, run_round


def main() -> int:
    """Run the campaign, print a line a round and a table at the end."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--faults", type=int, default=100, help="how many faults (100)")
    parser.add_argument("--seed", type=int, default=1, help="decides kinds and times of the faults (1)")
    parser.add_argument(
        "--only", nargs="+", default=(), metavar="KIND", help='kinds of faults, e.g. "kill driver" (all)'
    )
    parser.add_argument("--keep", type=Path, help="folder for outputs and faults.jsonl; default: a temporary one")
    wanted = parser.parse_args()
    if wanted.keep and wanted.keep.exists() and any(wanted.keep.iterdir()):
        parser.error(f"--keep: got {wanted.keep}; allowed: an empty or a new folder")
    names = [fault.name for fault in all_faults(has_disk=True)]
    if odd := [kind for kind in wanted.only if not any(name.startswith(kind) for name in names)]:
        parser.error(f"--only: got {odd[0]}; allowed: the beginning of one of {', '.join(names)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as temporary:
        folder = wanted.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        expected = run_round(0, wanted.seed, 0, folder / "undisturbed")
        _print(expected)
        rounds: list[Round] = []
        struck: Counter[str] = Counter()
        while not expected.problems and (left := wanted.faults - sum(len(each.applied) for each in rounds)) > 0:
            number = len(rounds) + 1
            n_faults, place = min(left, FAULTS_A_ROUND), folder / f"{number}"
            rounds.append(run_round(number, wanted.seed, n_faults, place, expected, wanted.only, struck))
            _print(rounds[-1])
        with (folder / "faults.jsonl").open("w") as file:
            for each in rounds:
                file.writelines(json.dumps({"round": each.number} | asdict(fault)) + "\n" for fault in each.applied)
    counts = Counter(fault.fault for each in rounds for fault in each.applied)
    for name, count in sorted(counts.items()):
        print(f"{count:5}  {name}")
    bad = [each for each in [expected, *rounds] if each.problems]
    starts, minutes = sum(each.starts for each in rounds), (time.monotonic() - began) / 60
    print(f"{counts.total()} faults in {len(rounds)} studies, {starts} starts, {minutes:.1f} min: {len(bad)} wrong")
    return bool(bad)


def _print(done: Round) -> None:
    faults = ", ".join(f"{each.fault} at {each.at_s:.0f} s" for each in done.applied) or "undisturbed"
    print(f"study {done.number}: {done.starts} starts, {done.wall_s:.0f} s: {faults}", flush=True)
    for problem in done.problems:
        print(f"  WRONG {problem}", flush=True)


if __name__ == "__main__":
    sys.exit(main())

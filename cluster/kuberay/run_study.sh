#!/bin/bash
# The entrypoint of a RayJob: one study, again after a failure, never after a refusal; its logs lie beside its rows.
#
#   run_study.sh STUDY.py STORAGE [words for qsgd-ray run]
#
# KubeRay's own backoffLimit does not look at the exit code: it would start a new cluster for a study that was refused.
set -euo pipefail

if [[ $# -lt 2 ]]; then
    echo "usage: run_study.sh STUDY.py STORAGE [words for qsgd-ray run]" >&2
    exit 2
fi
study=$1 storage=$2
shift 2

attempts=3
for ((attempt = 1; ; attempt++)); do
    code=0
    qsgd-ray run "$study" --storage "$storage" "$@" || code=$?
    case $code in
        0) break ;;
        2) break ;;                # refused, and it would be refused again
        129 | 130 | 143) break ;;  # stopped by a signal
    esac
    if ((attempt == attempts)); then break; fi
    echo "attempt $attempt of $attempts ended with exit code $code; the study goes on in ${QSGD_RAY_WAIT_S:-30} s" >&2
    sleep "${QSGD_RAY_WAIT_S:-30}"
done
python "$(dirname "$0")/keep_logs.py" "$storage" || true
exit "$code"

#!/usr/bin/env bash
# Judge, rollouts and training on one GPU of 141 GB (H200): the judge takes a third, vLLM sleeps while the policy learns. About 15 to 20 hours.
# Usage: one_gpu.sh RECIPE RUN DATA_ROOT   e.g. one_gpu.sh paper/speciarl runs/speciarl /data
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
judge=$("$here/judge.sh" 0 8001 0.33) # first: an engine wants its share to be free when it starts
trap 'kill "$judge"' EXIT
speciarl train "$1" --out "$2" --data-root "$3" --judge-url http://127.0.0.1:8001/v1 --set micro_batch=16

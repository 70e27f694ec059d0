#!/usr/bin/env bash
# One node of 4 to 8 GPUs of 80 GB: the last two serve the judge, the others train (a power of two of them). 4 + 2 A100: about 12 hours.
# Usage: one_node.sh TRAINING_GPUS RECIPE RUN DATA_ROOT   e.g. one_node.sh 4 paper/speciarl runs/speciarl /data
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
training=$1
judge=$("$here/judge.sh" "$training,$((training + 1))" 8001 0.9)
trap 'kill "$judge"' EXIT
CUDA_VISIBLE_DEVICES=$(seq -s, 0 $((training - 1))) accelerate launch --config_file "$here/ddp.yaml" --num_processes "$training" \
  "$(command -v speciarl)" train "$2" --out "$3" --data-root "$4" --judge-url http://127.0.0.1:8001/v1

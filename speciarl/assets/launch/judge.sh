#!/usr/bin/env bash
# Serve the judge with vLLM and wait until it answers.
# Usage: judge.sh GPUS PORT MEMORY_SHARE [TOGETHER]   e.g. judge.sh 2,3 8001 0.9, or JUDGE=meta-llama/Meta-Llama-3-70B-Instruct judge.sh 4,5,6,7 8002 0.9 4
# TOGETHER GPUs hold one copy of the model (1 if not given); a log for each port, judge.log for 8001.
# One replica per GPU of the list: the FP8 judge has blocks of 128 and experts of 768, so tensor parallelism over 4 fails; replicas do not.
set -euo pipefail
gpus=$1 port=$2 share=$3 together=${4:-1}
log=judge.log; [ "$port" = 8001 ] || log=judge-$port.log
model=${JUDGE:-Qwen/Qwen3-30B-A3B-Instruct-2507-FP8}
CUDA_VISIBLE_DEVICES=$gpus vllm serve "$model" --served-model-name "$model" --host 127.0.0.1 --port "$port" \
  --data-parallel-size "$(($(tr ',' '\n' <<<"$gpus" | wc -l) / together))" --tensor-parallel-size "$together" --max-model-len 4096 --max-num-seqs 512 --gpu-memory-utilization "$share" \
  --generation-config vllm --max-logprobs 20 >"$log" 2>&1 &
judge=$!
until curl -sf "http://127.0.0.1:$port/health" >/dev/null; do
  kill -0 "$judge" 2>/dev/null || { tail -n 20 "$log" >&2; echo "error: the judge did not start; see $log" >&2; exit 1; }
  sleep 5
done
echo "$judge"

#!/usr/bin/env bash
# All weights with deepspeed ZeRO-2, on conversations with tools.
#   bash finetune/finetune_ds_multiturn.sh --model THUDM/chatglm3-6b --train-file my.jsonl
#   LR=1e-5 MAX_STEP=300 bash finetune/finetune_ds_multiturn.sh
# Typed bare, it trains the embedded model on a shipped sample, in minutes. Flags and a
# --config file win over the constants below; --preset official takes the values of the
# earlier system. Every flag: python -m finetune.train --help
set -euo pipefail

LR="${LR:-1e-5}"
NUM_GPUS="${NUM_GPUS:-4}"
MAX_SEQ_LEN="${MAX_SEQ_LEN:-2048}"
DEV_BATCH_SIZE="${DEV_BATCH_SIZE:-16}"
GRAD_ACCUMULATION_STEPS="${GRAD_ACCUMULATION_STEPS:-${GRAD_ACCUMULARION_STEPS:-1}}"
MAX_STEP="${MAX_STEP:-200}"
SAVE_INTERVAL="${SAVE_INTERVAL:-50}"

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ "${1:-}" == "--help" ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
  echo "Constants: LR=$LR NUM_GPUS=$NUM_GPUS MAX_SEQ_LEN=$MAX_SEQ_LEN DEV_BATCH_SIZE=$DEV_BATCH_SIZE GRAD_ACCUMULATION_STEPS=$GRAD_ACCUMULATION_STEPS MAX_STEP=$MAX_STEP SAVE_INTERVAL=$SAVE_INTERVAL"
  exit 0
fi
PYTHON="${PYTHON:-$(command -v python3 || command -v python)}"
PYTHON="$("$PYTHON" "$root/launch.py" prepare)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -m finetune.run finetune_ds_multiturn \
  LR="$LR" \
  NUM_GPUS="$NUM_GPUS" \
  MAX_SEQ_LEN="$MAX_SEQ_LEN" \
  DEV_BATCH_SIZE="$DEV_BATCH_SIZE" \
  GRAD_ACCUMULATION_STEPS="$GRAD_ACCUMULATION_STEPS" \
  MAX_STEP="$MAX_STEP" \
  SAVE_INTERVAL="$SAVE_INTERVAL" \
  "$@"

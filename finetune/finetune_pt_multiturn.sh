#!/usr/bin/env bash
# P-Tuning v2 on conversations with tools, in ChatGLM3's official layout.
#   bash finetune/finetune_pt_multiturn.sh --model THUDM/chatglm3-6b --train-file my.jsonl
#   LR=5e-3 MAX_STEP=300 bash finetune/finetune_pt_multiturn.sh
# Typed bare, it trains the embedded model on a shipped sample, in minutes. Flags and a
# --config file win over the constants below; --preset official takes the values of the
# earlier system. Every flag: python -m finetune.train --help
set -euo pipefail

PRE_SEQ_LEN="${PRE_SEQ_LEN:-128}"
LR="${LR:-5e-3}"
NUM_GPUS="${NUM_GPUS:-1}"
MAX_SEQ_LEN="${MAX_SEQ_LEN:-2048}"
DEV_BATCH_SIZE="${DEV_BATCH_SIZE:-1}"
GRAD_ACCUMULATION_STEPS="${GRAD_ACCUMULATION_STEPS:-${GRAD_ACCUMULARION_STEPS:-16}}"
MAX_STEP="${MAX_STEP:-1000}"
SAVE_INTERVAL="${SAVE_INTERVAL:-500}"

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
if [[ "${1:-}" == "--help" ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
  echo "Constants: PRE_SEQ_LEN=$PRE_SEQ_LEN LR=$LR NUM_GPUS=$NUM_GPUS MAX_SEQ_LEN=$MAX_SEQ_LEN DEV_BATCH_SIZE=$DEV_BATCH_SIZE GRAD_ACCUMULATION_STEPS=$GRAD_ACCUMULATION_STEPS MAX_STEP=$MAX_STEP SAVE_INTERVAL=$SAVE_INTERVAL"
  exit 0
fi
PYTHON="${PYTHON:-$(command -v python3 || command -v python)}"
PYTHON="$("$PYTHON" "$root/launch.py" prepare)"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -m finetune.run finetune_pt_multiturn \
  PRE_SEQ_LEN="$PRE_SEQ_LEN" \
  LR="$LR" \
  NUM_GPUS="$NUM_GPUS" \
  MAX_SEQ_LEN="$MAX_SEQ_LEN" \
  DEV_BATCH_SIZE="$DEV_BATCH_SIZE" \
  GRAD_ACCUMULATION_STEPS="$GRAD_ACCUMULATION_STEPS" \
  MAX_STEP="$MAX_STEP" \
  SAVE_INTERVAL="$SAVE_INTERVAL" \
  "$@"

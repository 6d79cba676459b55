#!/usr/bin/env bash
# What travels between Hugging Face's libraries and lora-dist: $1 is the check. LRD_HF_PYTHON names a Python that has the packages below;
# otherwise they are installed into a virtual environment of the build folder.
set -uo pipefail
python=${LRD_HF_PYTHON:-$LRD_BINARY_DIR/hf-venv/bin/python}
if ! "$python" -c 'import torch, transformers, peft' 2> /dev/null; then
  { python3 -m venv "$LRD_BINARY_DIR/hf-venv" && "$python" -m pip install -q torch==2.13.0 transformers==5.23.0 \
    peft==0.21.2 safetensors numpy; } > "$LRD_BINARY_DIR/hf-venv.log" 2>&1 ||
    { echo "SKIPPED: no Hugging Face packages here, and they cannot be installed"; exit 77; }
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
HF_HUB_OFFLINE=1 "$python" "$LRD_SOURCE_DIR/tests/app/$1" "$LRD_PROGRAM" \
  "$LRD_SOURCE_DIR/tests/golden/runs/all-linear" "$work"

#!/usr/bin/env bash
# Runs a test in Python against the fake Hub: hub_test.sh FILE.py [CLASS]. Library wants huggingface_hub, Transformers
# transformers and peft too, Datasets datasets.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
case ${2:-} in
Library) find_python huggingface_hub hub-venv huggingface_hub==2.4.0 ;;
Datasets) find_python datasets,pyarrow datasets-venv datasets==5.2.0 ;;
Transformers) find_python torch,transformers,peft hf-venv "${hf_packages[@]}" ;;
esac
LRD_HF_PYTHON=${python:-} exec python3 -u -B "$LRD_SOURCE_DIR/tests/hub/$1" "${@:2}"

#!/usr/bin/env bash
# Device memory that CUDA's graphs and NCCL take for themselves: it is in the plan, what they take is measured, a run for
# which it leaves no room is planned otherwise, and where it is not enough a message says for what and what to do. Emulated
# devices take known amounts.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_fast_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1 LRD_EMULATED_DEVICES=2
write_model model 4 64 2 64
write_records train.jsonl 8 64
cat >config.yaml <<'END'
model: {name_or_path: model}
lora: {r: 4, target_modules: all-linear, lora_dropout: 0.1}
data: {format: tokenized, train_file: train.jsonl, cache_dir: data}
training: {per_device_train_batch_size: 1, global_batch_size: 4, max_steps: 3, save_steps: 100, warmup_steps: 0}
parallel: {shares: even} # room for unequal ones would be given up first
END

# run NAME RANKS [SETTING]...
run() {
  local launch=() setting settings=()
  (($2 == 1)) || launch=(mpirun -np "$2" --bind-to none)
  for setting in "${@:3}"; do settings+=(--set "$setting"); done
  timeout 120 "${launch[@]}" "$LRD_PROGRAM" --config config.yaml --backend cuda --set training.output_dir="$1" "${settings[@]}" \
    >"$1.text" 2>"$1.log" </dev/null
}
succeed() { run "$@" || fail "$1: $(cat "$1.log")"; }
# What libraries took, in tenths of a MiB: taken NCCL|graphs NAME
taken() { sed -n "s/^Device memory that libraries took .*$1 \([0-9]*\)\.\([0-9]\) of at most.*/\1\2/p" "$2.log" | sed 's/^0*\(.\)/\1/'; }
kib() { awk -v row="$1" 'index($0, "  " row "  ") == 1 { print int($(NF - 1) * 1024) }' "$2"; } # of a row of the table
exact() { grep -q '; 0.0 MiB went elsewhere' "$1.log" || fail "$1: not all is accounted for: $(cat "$1.log")"; }

# Graphs: what a node takes, times their number; NCCL: what was open, and its connections, one for messages and one for
# gathers on each of eight channels.
succeed one 1
LRD_EMULATED_NODE_BYTES=$((3 * 10240)) succeed more 1
echo "graphs take $(taken graphs one) and $(taken graphs more) tenths of a MiB"
exact one; exact more
(($(taken graphs one) > 20)) || fail "no graphs are counted"
((3 * $(taken graphs one) - $(taken graphs more) <= 2 && $(taken graphs more) - 3 * $(taken graphs one) <= 2)) || fail "graphs: other bytes"
(($(taken graphs one) * 1024 / 10 < $(kib 'graphs, at most' one.log))) || fail "graphs: $(taken graphs one) are more than planned"
LRD_EMULATED_NCCL_BYTES=$((1 << 20)) succeed two 2
[[ $(taken NCCL two) == 162 ]] || fail "NCCL took $(taken NCCL two), expected 0.25 + 2 x 8 MiB"
exact two
cmp one/adapter_model.safetensors two/adapter_model.safetensors || fail "other bytes"
"$LRD_PROGRAM" plan --config config.yaml --backend cuda --ranks 2 >planned 2>log || fail "plan: $(cat log)"
for row in 'NCCL, at most' 'graphs, at most'; do
  (($(kib "$row" planned) > 0 && $(kib "$row" planned) == $(kib "$row" two.log))) || fail "$row: planned $(kib "$row" planned)"
done
# Of 8 channels each has 14 MiB for messages and 14 for gathers, and 2 x 2 by a switch; and 128 are a guess.
(($(kib 'NCCL, at most' planned) == (128 + 8 * (14 + 14 + 4)) * 1024)) || fail "NCCL: planned $(kib 'NCCL, at most' planned) KiB"
NCCL_MAX_CTAS=16 NCCL_BUFFSIZE=$((8 << 20)) "$LRD_PROGRAM" plan --config config.yaml --backend cuda --ranks 2 >planned 2>log || fail "plan: $(cat log)"
(($(kib 'NCCL, at most' planned) == (128 + 16 * (18 + 18 + 4)) * 1024)) || fail "NCCL as the environment wants it: $(cat planned)"

# The record of a run has both (docs/formats.md).
recorded() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$2/run.jsonl"; } # bytes
(($(recorded 'NCCL, at most' two) == (128 + 8 * (14 + 14 + 4)) << 20)) || fail "run.jsonl: NCCL $(recorded 'NCCL, at most' two)"
(($(recorded 'NCCL, at most' one) == 0)) || fail "run.jsonl: NCCL on one rank"
[[ $(recorded 'graphs, at most' one | awk '{ printf "%.1f", $1 / 1048576 }') == "$(awk '/^  graphs, at most/ { print $(NF - 1) }' one.log)" ]] ||
  fail "run.jsonl: graphs $(recorded 'graphs, at most' one)"

# And which libraries it used.
"$LRD_PROGRAM" info >info || fail "info"
for name in 'CUDA runtime' cuBLASLt 'GPU to GPU' MPI; do
  version=$(sed -n "s/^ *$name: //p" info)
  grep -q "\"$name\": \"$version\"" two/run.jsonl && [[ -n $version ]] || fail "run.jsonl: $name is not '$version'"
done
! grep -q 'GPU to GPU' one/run.jsonl || fail "run.jsonl: one rank has used a library between GPUs"

# Graphs of answers in evaluations, which are gone behind each of them, count too: as many nodes as there were at once. A
# driver may keep what they took.
write_model asked 4 64 2 256
write_byte_tokenizer asked/tokenizer.json
python3 - <<'END'
import json
questions = [{"id": f"q{i}", "question": "Who came?" + "?" * i, "is_impossible": False, "answers": [{"text": "Ann", "answer_start": 0}]} for i in range(4)]
json.dump({"version": "v2.0", "data": [{"title": "t", "paragraphs": [{"context": "Ann came with Bob.", "qas": questions}]}]}, open("questions.json", "w"))
END
asked=(model.name_or_path=asked data.format=squad data.train_file=questions.json training.max_steps=4)
answers=(data.eval_file=questions.json training.eval_steps=2 training.predict_with_generate=true training.generation_max_new_tokens=12)
LRD_EMULATED_COUNTS=silent.counts succeed silent 1 "${asked[@]}" "${answers[@]}" training.predict_with_generate=false
LRD_EMULATED_COUNTS=answers.counts succeed answers 1 "${asked[@]}" "${answers[@]}"
LRD_EMULATED_GRAPHS_STAY=1 LRD_EMULATED_COUNTS=kept.counts succeed kept 1 "${asked[@]}" "${answers[@]}"
for name in silent answers kept; do
  nodes=$(awk '{ print $8 }' $name.counts)
  echo "$name: $nodes nodes, $(taken graphs $name) tenths of a MiB"
  exact $name
  [[ $(taken graphs $name) == "$(awk -v n="$nodes" 'BEGIN { printf "%.0f", n * 10240 / 104857.6 }')" ]] ||
    fail "$name: graphs took $(taken graphs $name), expected $nodes nodes of 10 KiB"
done
(($(taken graphs answers) > $(taken graphs silent))) || fail "answers have no graphs"
LRD_EMULATED_MEMORY=$((($(kib 'in all' answers.log) - $(kib 'graphs, at most' answers.log) / 2) * 1024)) \
  succeed tight 1 "${asked[@]}" "${answers[@]}"
grep -q '^No room for graphs' tight.log || fail "answers and graphs in too little memory: $(cat tight.log)"
! grep -q 'graphs, at most' tight.log || fail "answers set memory aside for graphs in a run that has no room for them"
cmp answers/trainer_state.json tight/trainer_state.json || fail "other evaluations without graphs"

# Scores set memory aside for their graphs, too.
"$LRD_PROGRAM" score --model model --data train.jsonl --backend cuda >scores 2>log || fail "score: $(cat log)"
code=0
LRD_EMULATED_MEMORY=$((1 << 20)) "$LRD_PROGRAM" score --model model --data train.jsonl --backend cuda >scores 2>log || code=$?
((code == 2)) && grep -q 'error: ' log || fail "score in one MiB: $code $(cat log)"

# Where a run fits but for its graphs it does without them; where it does not leave NCCL its part it becomes two stages,
# which need less, or blocks leave the device.
export LRD_EMULATED_MEMORY=$((($(kib 'in all' one.log) - $(kib 'graphs, at most' one.log) / 2) * 1024))
succeed ungraphed 1
grep -q '^No room for graphs' ungraphed.log || fail "graphs in too little memory: $(cat ungraphed.log)"
cmp one/adapter_model.safetensors ungraphed/adapter_model.safetensors || fail "other bytes without graphs"
LRD_EMULATED_MEMORY=$((($(kib 'in all' two.log) - $(kib 'graphs, at most' two.log) - 64) * 1024))
succeed split 2
grep -q '^1 replica of 2 stages' split.log || fail "NCCL has no room: $(cat split.log)"
cmp one/adapter_model.safetensors split/adapter_model.safetensors || fail "other bytes of two stages"
LRD_EMULATED_MEMORY=$((($(kib 'in all' two.log) - $(kib 'graphs, at most' two.log) - 64) * 1024))
succeed away 2 parallel.data=2
grep -q "'transformer.h.[0-9]': 'cpu'" away.log || fail "nothing leaves the device: $(cat away.log)"
cmp one/adapter_model.safetensors away/adapter_model.safetensors || fail "other bytes of blocks that travel"
unset LRD_EMULATED_MEMORY

# What takes more than was set aside ends the run, by name.
ends() { # NAME RANKS SETTING TEXT...
  local code=0 text
  run "$1" "$2" "$3" || code=$?
  ((code != 0 && code != 124)) || fail "$1: exit code $code: $(cat "$1.log")"
  for text in "${@:4}"; do grep -q "error: .*$text" "$1.log" || fail "$1 does not say '$text': $(cat "$1.log")"; done
  [[ ! -e $1/adapter_model.safetensors ]] || fail "$1 leaves an adapter"
  grep -m 1 'error: ' "$1.log"
}
# There is room for the way forward through four blocks, not for the way back: its nodes are no more than are planned.
LRD_EMULATED_NODE_BYTES=$((1 << 26)) ends graphs 1 training.gradient_checkpointing=block 'out of device memory for graphs: one of [1-9][0-9]* nodes' \
  'the device has [0-9.]* of 8192.0 MiB free' 'parallel.max_memory' 'LRD_CUDA_GRAPHS=0'
nodes=$(sed -n 's/.*one of \([0-9]*\) nodes.*/\1/p' graphs.log)
((nodes > 4 * 32 && nodes <= 4 * 64 + 64)) || fail "the way back through four blocks has $nodes nodes"
LRD_EMULATED_NCCL_BYTES=$((1 << 30)) ends nccl 2 parallel.data=2 'out of device memory for NCCL, which has taken 0.2 MiB' \
  'the device has [0-9.]* of 8192.0 MiB free' 'parallel.max_memory' 'parallel.transport: mpi'
echo PASSED

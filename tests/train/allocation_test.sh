#!/usr/bin/env bash
# Memory runs out: each allocation of a command fails in turn (LRD_FAIL_ALLOC, base/mem.h). The command must end
# with exit code 1 or 2 and one message about memory, and leave nothing half-written; or, where it could do
# without, end with 0 and the very same results.
#
#   allocation_test.sh STEP COMMAND...             every STEP-th allocation of train, train_away (blocks that travel),
#                                                  train_answers, generate, answer, score, inspect, tokenize, report
#   allocation_test.sh STEP train_on_two [RANK]    of one rank of two, each with the whole model
#   allocation_test.sh STEP train_on_stages [RANK] of one rank of two, each with some of the layers
set -uo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
step=$1
shift
base="$LRD_SOURCE_DIR/tests/golden/runs/post-layernorm"
work=$(make_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1 TMPDIR=$work
shopt -s nullglob dotglob globstar extglob
failures=0

cp -r "$base/model" "$base/adapter" "$base/config.yaml" .
chmod -R u+w .
write_byte_tokenizer model/tokenizer.json
cp "$LRD_SOURCE_DIR/tests/golden/data/passages.json" questions.json
cp "$LRD_SOURCE_DIR/tests/golden/parquet/passages.parquet" questions.parquet
head -n 12 "$base/train.jsonl" > train.jsonl
head -n 3 "$base/train.jsonl" > eval.jsonl
printf '"to be or"\n"not to be </s>"\n' > texts
printf '{"prompt": "a b"}\n{"input_ids": [5, 6], "adapter": null}\n{"prompt": "c", "adapter": "twin"}\n' > prompts.jsonl

train=(--config config.yaml --set training.max_steps=2 --set training.save_steps=1 --set training.eval_steps=1
       --set training.save_total_limit=1 --set training.load_best_model_at_end=true --set data.eval_file=eval.jsonl
       --set training.gradient_accumulation_steps=null --set training.global_batch_size=8
       --set training.per_device_train_batch_size=2 --log-level debug)
train_away=("${train[@]}" --backend cpu_checked --set model.dtype=bfloat16 --set parallel.offload_folder=out/copies
            --set 'parallel.device_map={"": 0, transformer.h.0: cpu, transformer.h.1: disk}')
squad=(--set data.format=squad --set data.max_length=400 --set data.on_too_long=drop)
train_answers=("${train[@]}" "${squad[@]}" --set data.train_file=questions.json --set data.eval_file=questions.parquet
               --set data.cache_dir=cache --set training.max_steps=1 --set training.predict_with_generate=true
               --set training.generation_max_new_tokens=3 --set training.metric_for_best_model=f1)
generate=(generate --model model --adapter adapter --adapter twin=adapter --prompt-file prompts.jsonl
          --max-new-tokens 3 --do-sample --log-level debug)
answer=(eval --config config.yaml "${squad[@]}" --data questions.json --adapter adapter --max-new-tokens 3
        --output out/predictions.json --log-level debug)
score=(score --model model --adapter adapter --data eval.jsonl --logits-out out/logits --log-level debug)
inspect=(inspect --model model --adapter adapter --log-level debug)
tokenize=(tokenize --model model --log-level debug)
report=(report ran ran/checkpoint-2 --out - --log-level debug)

# run NUMBER COMMAND...: with that allocation failing; leaves stdout, stderr and $code
run() {
  code=0
  LRD_FAIL_ALLOC=$1 timeout -k 1 30 "${@:2}" > stdout 2> stderr < texts || code=$?
}

problem() {
  failures=$((failures + 1))
  echo "FAILED $what: $1 (exit code $code)"
  tail -n 3 stderr | cut -c1-300 | sed 's/^/    /'
}

# What stands in out after success, or failure, of training.
check_output() {
  local partial=(out/**/*.partial*) names=(out/!(run).*) state
  # A job that is ended, as by a kill, cannot give its folder back. The next run is not stopped by that.
  [ "${ended:-no}" = no ] || mapfile -t names < <(find out -maxdepth 1 -name '*.*' ! -name 'run.*' | LC_ALL=C sort)
  [ ${#partial[@]} = 0 ] || problem "something half-written: ${partial[*]}"
  if [ ${#names[@]} != 0 ] && [ "${names[*]##*/}" != "README.md adapter_config.json adapter_model.safetensors trainer_state.json" ]; then
    problem "half an adapter: ${names[*]}"
  fi
  for state in out/checkpoint-*/; do
    names=("$state"*)
    [ "${names[*]##*/}" = "README.md adapter_config.json adapter_model.safetensors state.h5 trainer_state.json" ] ||
      problem "half a checkpoint: ${names[*]}"
  done
}

same_adapter() {
  cmp -s out/adapter_model.safetensors reference/adapter_model.safetensors &&
    cmp -s out/adapter_config.json reference/adapter_config.json &&
    cmp -s out/trainer_state.json reference/trainer_state.json || problem "another result"
}

check_message() {
  local lines=() errors=()
  mapfile -t lines < stderr
  for line in "${lines[@]}"; do
    case $line in "error: "* | "[rank "*"] error: "*) errors+=("$line") ;; esac
  done
  [ ${#errors[@]} = 1 ] || problem "${#errors[@]} error lines"
  [[ ${errors[*]} = *memory* ]] || problem "no word about memory"
}

check_train() {
  check_output
  if [ "$code" = 0 ]; then
    same_adapter
  elif ((number % 5 == 0)); then # what a failed run leaves is in nobody's way
    run 0 "${launch[@]}" "$LRD_PROGRAM" "${train[@]}" --set training.overwrite_output_dir=true
    [ "$code" = 0 ] || problem "the run after it failed"
    same_adapter
  fi
}

check_score() {
  local names=(out/*)
  if [ "$code" = 0 ]; then
    cmp -s stdout reference/stdout && cmp -s out/logits reference/logits || problem "another result"
  else
    [ ${#names[@]} = 0 ] || problem "left behind: ${names[*]}"
  fi
}

check_train_answers() {
  check_output
  ((code != 0)) || same_adapter
}

check_answer() {
  local names=(out/*) file
  if [ "$code" = 0 ]; then
    cmp -s stdout reference/stdout && cmp -s out/predictions.json reference/predictions.json &&
      cmp -s out/predictions.evaluation.json reference/predictions.evaluation.json || problem "another result"
  elif [ ${#names[@]} != 0 ]; then # answers outlive a failure to score them
    for file in "${names[@]}"; do # either of the two is whole
      [[ $file = out/predictions.* ]] && cmp -s "$file" "reference/${file#out/}" || problem "left behind: ${names[*]}"
    done
  fi
}

check_same() {
  [ "$code" != 0 ] || cmp -s stdout reference/stdout || problem "another result"
}

# sweep NAME CHECK WORD...: a command on one rank
sweep() {
  local name=$1 check=$2 number total
  shift 2
  what="$name"
  rm -rf out reference
  mkdir out
  run 1000000000 "$LRD_PROGRAM" "$@"
  total=$(sed -n 's/^debug: \([0-9]*\) allocations$/\1/p' stderr)
  [ "$code" = 0 ] && [ "${total:-0}" -gt 100 ] || { problem "does not run, or counts no allocations"; return; }
  mv out reference
  cp stdout reference/
  for ((number = 1; number <= total; number += step)); do
    what="$name, allocation $number of $total"
    rm -rf out
    mkdir out
    run "$number" "$LRD_PROGRAM" "$@"
    ((code <= 2)) || problem "ended badly"
    ((code == 0)) || check_message
    "$check"
  done
  echo "$name: every $step. of $total allocations"
}

# Leaves the exit code of each rank in codes/.
cat > each_rank.sh <<'SCRIPT'
[ "$OMPI_COMM_WORLD_RANK" = "$WHICH" ] || unset LRD_FAIL_ALLOC
"$@"
echo $? > "codes/$OMPI_COMM_WORLD_RANK"
SCRIPT

# Allocations of one rank of two. Within an update that rank ends the job, elsewhere all ranks end with one code.
sweep_rank() {
  local number total codes ended
  export WHICH=$1
  what="rank $WHICH"
  launch=(mpirun -np 2 --bind-to none bash each_rank.sh)
  rm -rf out reference codes
  mkdir out codes
  run 1000000000 "${launch[@]}" "$LRD_PROGRAM" "${train[@]}"
  total=$(sed -n 's/.*debug: \([0-9]*\) allocations$/\1/p' stderr)
  [ "$code" = 0 ] && [ "${total:-0}" -gt 100 ] || { problem "does not run, or counts no allocations"; return; }
  mv out reference
  for ((number = 1; number <= total; number += step)); do
    what="rank $WHICH, allocation $number of $total"
    rm -rf out codes
    mkdir out codes
    run "$number" "${launch[@]}" "$LRD_PROGRAM" "${train[@]}"
    ended=no
    codes=$(cat codes/* 2> /dev/null | tr '\n' ' ')
    case "$code $codes" in
    "0 0 0 ") ;;
    "0 1 1 " | "0 2 2 ") code=${codes%% *} ;;
    "1 1 " | "1 1 1 " | "1 ") ended=yes ;; # the job was
    *) problem "ended badly; the ranks: $codes" ;;
    esac
    ((code == 0)) || check_message
    check_train
  done
  echo "rank $WHICH: every $step. of $total allocations"
}

launch=()
case $1 in
train_on_two | train_on_stages)
  [ "$1" = train_on_two ] || train+=(--set parallel.pipeline=2)
  for rank in ${2:-0 1}; do
    sweep_rank "$rank"
  done
  ;;
*)
  for name in "$@"; do
    declare -n words=$name
    [[ $name != report || -d ran ]] || run 0 "$LRD_PROGRAM" "${train[@]}" --set training.output_dir=ran
    case $name in
    train | train_answers | answer | score) sweep "$name" "check_$name" "${words[@]}" ;;
    train_away) sweep "$name" check_train_answers "${words[@]}" ;;
    *) sweep "$name" check_same "${words[@]}" ;;
    esac
  done
  ;;
esac
[ "$failures" = 0 ] || { echo "$failures failures"; exit 1; }
echo PASSED

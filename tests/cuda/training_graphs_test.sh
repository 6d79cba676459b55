#!/usr/bin/env bash
# A training through graphs, and the padding that makes micro-batches come again: the same adapter and the same log to the
# bit as without both, from records of many lengths and few targets, with dropout and evaluations; and an update and an
# evaluation take as many calls of the host as predicted, whatever the number of layers is, once sizes have come twice.
#
#   training_graphs_test.sh bytes RUN...   a run: RANKS:STAGES:DTYPE[:SETTING=VALUE]
#   training_graphs_test.sh calls
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
out=$(make_temporary)
remove_at_exit "$out"
cd "$out"
export OMP_NUM_THREADS=1
echo 'data: {format: tokenized}' >config.yaml
python3 - <<'END_OF_PYTHON'
import json, random
r = random.Random(3)
def write(name, records):
    with open(name + ".jsonl", "w") as f:
        for n, targets in records:
            ids = [r.randrange(64) for _ in range(n)]
            f.write(json.dumps({"input_ids": ids, "labels": [-100] * (n - targets) + ids[n - targets:]}) + "\n")
write("equal", [(12, 12)] * 60)
write("asked", [(12, 12)] * 24)
write("different", [(n, r.randint(1, n)) for n in (r.randint(2, 60) for _ in range(16))])
write("eval", [(n, min(n, 4)) for n in (r.randint(2, 60) for _ in range(7))])
END_OF_PYTHON
# train RANKS NAME MODEL DATA UPDATES [SETTING=VALUE]...: "launches" of the run on rank 0.
train() {
    local settings=() launch=()
    (($1 == 1)) || launch=(mpirun -np "$1" --bind-to none)
    for setting in model.name_or_path="$3" data.train_file="$4.jsonl" training.max_steps="$5" training.output_dir="$2" \
        training.overwrite_output_dir=true "${@:6}"; do
        settings+=(--set "$setting")
    done
    rm -f counts
    LRD_EMULATED_COUNTS=$out/counts "${launch[@]}" "$LRD_PROGRAM" --config config.yaml "${settings[@]}" --backend cuda \
        >text 2>log || fail "$2: $(grep error log || tail -3 log)"
    sed -n '1s/.*launches //p' counts
}

# bytes RANKS STAGES DTYPE [SETTING=VALUE]
bytes() {
    local name=$1-$2-$3$4 with without
    local several=(lora.target_modules=all-linear lora.lora_dropout=0.1 model.dtype="$3" parallel.pipeline="$2"
        training.per_device_train_batch_size=2 training.gradient_accumulation_steps=null training.global_batch_size=8
        training.num_train_epochs=2 data.eval_file=eval.jsonl training.eval_steps=2 training.per_device_eval_batch_size=3
        ${4:+"$4"})
    with=$(train "$1" "with-$name" two different -1 "${several[@]}")
    without=$(LRD_CUDA_GRAPHS=0 train "$1" "without-$name" two different -1 "${several[@]}")
    echo "$1 ranks, $2 stages, $3 $4: $with calls of the host with graphs, $without without"
    for file in adapter_model.safetensors trainer_state.json; do
        cmp "with-$name/$file" "without-$name/$file" || fail "$name: another $file with graphs"
    done
    grep -q '"eval_loss": [0-9.e-]*[1-9]' "with-$name/trainer_state.json" || fail "$name: nothing was evaluated"
    ((2 * with < without)) || fail "$name: no calls are saved"
}

calls() {
    local model m few many evaluated equal=training.per_device_train_batch_size=2
    for model in one two; do
        for m in 1 5; do
            few=$(train 1 few "$model" equal 3 $equal training.gradient_accumulation_steps=$m)
            many=$(train 1 many "$model" equal 6 $equal training.gradient_accumulation_steps=$m)
            echo "model $model, $m micro-batches: $(((many - few) / 3)) calls an update"
            # Each: input, up, head, gradients to zero, down. Nodes of the reduction: 4 additions, 2 copies. The end: one.
            ((many - few == 3 * (m == 1 ? 6 : 32))) || fail "$(((many - few) / 3)) calls an update"
        done
        few=$(train 1 few "$model" equal 2 $equal)
        evaluated=$(train 1 evaluated "$model" equal 2 $equal data.eval_file=asked.jsonl training.eval_steps=2 \
            training.per_device_eval_batch_size=2)
        many=$(train 1 many "$model" equal 2 $equal data.eval_file=asked.jsonl training.eval_steps=1 \
            training.per_device_eval_batch_size=2)
        echo "model $model: $((many - evaluated)) calls for twelve batches of an evaluation, $((evaluated - few)) the first time"
        # Each: input, up, head. All losses at once.
        ((many - evaluated == 37)) || fail "$((many - evaluated)) calls an evaluation"
    done
}

write_model one 1 32 2 64
write_model two 2 32 2 64
case $1 in
bytes)
    for run in "${@:2}"; do
        IFS=: read -r ranks stages dtype setting <<<"$run"
        bytes "$ranks" "$stages" "$dtype" "$setting"
    done
    ;;
calls) calls ;;
*) fail "no part '$1'" ;;
esac

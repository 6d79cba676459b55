#!/usr/bin/env bash
# What `plan` says is what a run then takes, to the byte that is printed; memory decides how many stages
# there are and what each has; what does not fit is refused before any work.
set -euo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
work=$(make_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1
write_model model 10 64 4 500
python3 - <<'END'
import json, random
draw = random.Random(2)
for name, n, least in ("train.jsonl", 30, 20), ("eval.jsonl", 11, 20), ("equal.jsonl", 16, 59):
    with open(name, "w") as file:
        for _ in range(n):
            file.write(json.dumps({"input_ids": [draw.randrange(500) for _ in range(draw.randrange(least, 60))]}) + "\n")
for name, (layers, hidden, heads) in {"560m": (24, 1024, 16), "3b": (30, 2560, 32), "176b": (70, 14336, 112),
                                      "wide": (16, 256, 4)}.items():
    import os
    os.mkdir(name)
    json.dump({"model_type": "bloom", "n_layer": layers, "hidden_size": hidden, "n_head": heads, "vocab_size": 500 if name == "wide" else 250880,
               "torch_dtype": "float16"}, open(name + "/config.json", "w"))
END
cat > config.yaml <<'END'
model: {name_or_path: model}
lora: {r: 4, target_modules: all-linear}
data: {format: tokenized, train_file: train.jsonl, eval_file: eval.jsonl}
training: {per_device_train_batch_size: 2, gradient_accumulation_steps: 5, max_steps: 1, warmup_steps: 0}
END

plan() { "$LRD_PROGRAM" plan --config config.yaml --log-level warn "$@"; }
# The rows of a table of ranks: rank, layers, weights, activations, rest, in all.
rows() { awk '/^ *rank +host/ { on = 1; next } on && NF < 7 { exit } on { $2 = ""; NF--; gsub(/replica|^ [01] /, ""); print }'; }
# The same without what the host is called: "replica 0" in a plan.
plan_rows() { plan "$@" | sed 's/ replica [0-9]* / host /' | rows; }

# Memory as a run takes it.
for layout in "2 2 1 1" "3 3 1 1" "4 2 1 2" "2 2 3 1" "4 2 2 2"; do
  read -r ranks stages chunks replicas <<< "$layout"
  set=(--set parallel.pipeline="$stages" --set parallel.pipeline_chunks="$chunks" --set parallel.data="$replicas")
  mpirun -np "$ranks" --bind-to none "$LRD_PROGRAM" --config config.yaml --set training.output_dir="out$ranks$chunks" "${set[@]}" 2> log ||
    fail "a run on $layout: $(grep error: log)"
  rows < log > ran
  [ "$(wc -l < ran)" = "$ranks" ] || fail "the run on $layout names $(wc -l < ran) ranks"
  plan_rows "${set[@]}" > planned
  cmp ran planned || fail "planned for $layout: $(diff ran planned)"
  map=$(sed -n 's/^device_map = //p' log)
  [ "$(plan "${set[@]}" | sed -n 's/^device_map = //p')" = "$map" ] || fail "another map on $layout"
  echo "as planned: $layout"
done
"$LRD_PROGRAM" --config config.yaml --set training.output_dir=one 2> log
[ "$(plan | sed -n '/^  [a-z]* .* MiB$/p')" = "$(sed -n '/^  [a-z]* .* MiB$/p' log)" ] || fail "planned for one rank"

# Memory decides. A replica where it fits; else the fewest stages, the smaller rank with fewer layers.
layers() { plan_rows "$@" | awk '{ NF -= 4; $1 = ""; print }' | paste -sd '|'; }
[ "$(plan --ranks 4 --memory 1GiB | head -n 1)" = "device_map = {'': 0}" ] || fail "a replica fits"
whole=$(plan | awk '$1 == "in" && $2 == "all" { print int($3 * 1024) }')
[ "$(layers --ranks 4 --memory "$((whole - 300))KiB" | awk -F'|' '{ print NF }')" = 4 ] || fail "four ranks"
plan --ranks 4 --memory "$((whole - 300))KiB" | grep -q '^2 replicas of 2 stages' || fail "two stages are enough"
[ "$(layers --ranks 2 --set parallel.pipeline=2 --memory 1GiB)" = " embeddings, 0-4| 5-9, head" ] || fail "equal: $(layers --ranks 2 --set parallel.pipeline=2)"
small=$(layers --ranks 2 --memory "6MiB,$((whole - 300))KiB")
[[ $small =~ ^" embeddings, 0"(-[012])?"|" ]] || fail "unequal: $small"

# Runs of layers on each stage, left to the program: more where that is worth it by m / (m + (p - 1) / v), and fits.
chunks() { # RANKS MICRO-BATCHES [OPTION...]: "chosen other ratio", from the line that explains the choice
  "$LRD_PROGRAM" plan --config config.yaml --ranks "$1" --set parallel.pipeline="$1" --set training.gradient_accumulation_steps="$2" \
    --set model.name_or_path=wide --set data.train_file=equal.jsonl \
    --set training.per_device_train_batch_size=1 "${@:3}" 2>&1 >planned |
    sed -n 's/^pipeline_chunks = \([0-9]*\): with \([0-9]*\) runs\? .* would take \([0-9.]*\) times.*/\1 \2 \3/p'
}
formula() { # RANKS MICRO-BATCHES CHOSEN OTHER RATIO: does it say what the formula says, to 3 % for messages and head?
  awk -v p="$1" -v m="$2" -v v="$3" -v o="$4" -v r="$5" 'BEGIN {
    want = (m + (p - 1) / o) / (m + (p - 1) / v); print want, r; exit !(r > want * 0.97 && r < want * 1.03) }'
}
read -r v other ratio <<< "$(chunks 2 16)"
[ "$v $other" = "1 2" ] && formula 2 16 "$v" "$other" "$ratio" || fail "chunks of 16 micro-batches: $v $other $ratio"
grep -q ' 1 run of layers on each' planned || fail "one run: $(cat planned)"
for layout in "2 4" "2 2"; do
  read -r v other ratio <<< "$(chunks $layout)"
  [[ $v -gt 1 && $other = 1 ]] && formula $layout "$v" "$other" "$ratio" || fail "chunks of $layout: $v $other $ratio"
  grep -q " $v runs of layers on each" planned || fail "$v runs: $(cat planned)"
done
most=$(awk '$2 == "replica" && $3 == "0" && $(NF - 1) > most { most = $(NF - 1) } END { print int(most * 1024) - 110 }' planned)
[ "$(chunks 2 2 --memory "${most}KiB" | cut -d' ' -f1)" -lt "$v" ] || fail "$v runs in less memory than they take: $(cat planned)"
[ -z "$(chunks 2 16 --set parallel.pipeline_chunks=1)" ] || fail "what was asked for is explained"

# Recomputation where asked to choose: none where all fits, else what is enough, or stages where they are faster.
auto() { plan --set training.gradient_checkpointing=auto "$@" | sed -n 's/^\([0-9]* replica.* stages*\),.*computed again: \([a-z]*\)\..*/\1 \2/p'; }
[ "$(auto --memory 1GiB)" = "1 replica of 1 stage nothing" ] || fail "auto with room: $(auto --memory 1GiB)"
[ "$(auto --memory "$((whole - 300))KiB")" = "1 replica of 1 stage attention" ] || fail "auto: $(auto --memory "$((whole - 300))KiB")"
block=$(plan --set training.gradient_checkpointing=block | awk '$1 == "in" && $2 == "all" { print int($3 * 1024) + 100 }')
[ "$(auto --memory "${block}KiB")" = "1 replica of 1 stage block" ] || fail "auto with little: $(auto --memory "${block}KiB")"

# The ranks of a plan share the cores and the memory of this host, as under mpirun, unless they are told.
threads() { (unset OMP_NUM_THREADS; plan "$@") | sed -n 's/^An update on ranks like this one (\([0-9]*\) thread.*/\1/p'; }
cores=$(unset OMP_NUM_THREADS; nproc)
[ "$(threads)" = "$cores" ] && [ "$(threads --ranks $((cores + 1)))" = 1 ] && [ "$(threads --ranks 2 --threads 3)" = 3 ] ||
  fail "threads: $(threads), $(threads --ranks $((cores + 1))), $(threads --ranks 2 --threads 3)"
room() { plan "$@" | awk '$2 == "replica" && $3 == "0" { print int($NF + $(NF - 1)) }'; }
[ $(($(room --ranks 8) * 6)) -lt "$(room)" ] || fail "eight ranks have $(room --ranks 8) MiB each, one $(room)"

# What cannot be is refused, with what would help, by code 2.
refuse() { # TEXT OPTION...
  local code=0
  plan "${@:2}" > said 2> log || code=$?
  [ $code = 2 ] && [ ! -s said ] && grep -q -- "$1" log || fail "expected '$1' for ${*:2}: $code $(cat log)"
}
refuse 'smaller micro-batches' --ranks 2 --memory 1MiB
refuse 'is not the 3 ranks' --ranks 3 --set parallel.pipeline=2
refuse 'the model has 10 blocks' --ranks 2 --set parallel.pipeline=2 --set parallel.pipeline_chunks=9
refuse 'the model has 10 blocks' --ranks 12 --set parallel.pipeline=12
refuse 'lacks' --ranks 2 --memory 3MiB --set parallel.device_map=balanced
refuse 'max_memory' --memory 3xyz
refuse 'has no device' --ranks 2 --set 'parallel.device_map={transformer: 0}'
code=0
mpirun -np 2 --bind-to none "$LRD_PROGRAM" --config config.yaml --set training.output_dir=no --set parallel.max_memory='[1MiB,1MiB]' 2> log || code=$?
[ $code = 2 ] && [ "$(grep -c error: log)" = 1 ] && [ ! -e no/adapter_model.safetensors ] || fail "a run that does not fit: $code $(cat log)"

# Models that are not here but for their config.json. accelerate leaves devices empty where we do not.
big() { layers --set model.name_or_path="$1" --set training.per_device_train_batch_size=1 "${@:2}"; }
[ "$(big 560m --ranks 4 --memory 16GiB --set parallel.pipeline=4)" = " embeddings, 0-7| 8-15| 16-23| head" ] ||
  fail "560m on four: $(big 560m --ranks 4 --memory 16GiB --set parallel.pipeline=4)"
refuse 'device 0 has no layers (3 of the devices 0 to 3 have none).*Start 1 rank instead' --set model.name_or_path=560m --ranks 4 --memory 16GiB --set parallel.device_map=balanced
[ "$(big 560m --ranks 2 --memory 16GiB --set parallel.device_map=balanced)" = " embeddings, 0-1| 2-23, head" ] || fail "560m, balanced"
big 176b --ranks 8 --memory 80GiB | grep -q '^ embeddings, 0-' || fail "176b on eight"
echo PASSED

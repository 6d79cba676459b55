#!/usr/bin/env bash
# Bad input: exit code 2 (1 once work has begun), one error line that names what and where, nothing
# half-written, on one rank or several ($1).
set -uo pipefail
ranks=${1:-1}
base="$LRD_SOURCE_DIR/tests/golden/runs/all-linear"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
failures=0
launch=()
[ "$ranks" = 1 ] || launch=(mpirun -np "$ranks" --bind-to none)
export OMP_NUM_THREADS=1

# fresh: the model and the data, to be spoiled
fresh() {
  rm -rf model train.jsonl out
  cp -r "$base/model" model
  cp "$base/train.jsonl" train.jsonl
  sed 's/^  output_dir.*/  output_dir: out/; s/eval_file.*/eval_file: null/; s/eval_steps.*/eval_steps: null/' "$base/config.yaml" > config.yaml
}

# refuse NAME CODE TEXT [OPTION...]: the run must end with this code and say this
refuse() {
  local name=$1 want=$2 text=$3 code=0
  shift 3
  timeout 60 "${launch[@]}" "$LRD_PROGRAM" --config config.yaml "$@" > stdout 2> stderr || code=$?
  local problem=
  [ "$code" = "$want" ] || problem="exit code $code, expected $want"
  grep '^error: ' stderr | grep -qiF -- "$text" || problem="$problem; no error line says '$text'"
  [ "$(grep -c '^error: ' stderr)" = 1 ] || problem="$problem; $(grep -c '^error: ' stderr) error lines"
  [ ! -e out/adapter_model.safetensors ] || problem="$problem; an adapter was written"
  if [ -d out ] && find out -name '*.partial' | grep -q .; then problem="$problem; something half-written"; fi
  if [ -n "$problem" ]; then
    echo "FAILED $name: $problem"
    sed 's/^/    /' stderr | tail -4
    failures=$((failures + 1))
  else
    echo "ok $name"
  fi
  fresh
}

fresh
truncate -s 100000 model/model.safetensors;               refuse "truncated weights" 2 model.safetensors
printf '\377\377\377\377\377\377\377\177' | dd of=model/model.safetensors conv=notrunc status=none
refuse "absurd header length" 2 model.safetensors
sed -i 's/"n_layer": *[0-9]*/"n_layer": 30/; s/"num_hidden_layers": *[0-9]*/"num_hidden_layers": 30/' model/config.json
refuse "missing tensor" 2 "h."
sed -i 's/"vocab_size": *[0-9]*/"vocab_size": 700/' model/config.json; refuse "wrong shape" 2 "shape"
mv model/model.safetensors model/pytorch_model.bin;        refuse "only .bin" 2 ".bin"
rm model/model.safetensors;                                refuse "no weights" 2 "model"
sed -i 's/"model_type": *"bloom"/"model_type": "gpt2"/' model/config.json; refuse "other family" 2 gpt2
sed -i 's/"hidden_dropout": *0.0/"hidden_dropout": 0.1/' model/config.json; refuse "dropout in the base" 2 hidden_dropout
echo '{"model_type": ' > model/config.json;                refuse "config.json is no JSON" 2 config.json
rm -r model;                                               refuse "no model" 2 model
echo '{"input_ids": [1, 2, 999999]}' >> train.jsonl;       refuse "id beyond the vocabulary" 2 "train.jsonl:"
echo '{"input_ids": [1, -2]}' >> train.jsonl;              refuse "negative id" 2 "train.jsonl:"
echo '{"input_ids": [1, 2], "labels": [1]}' >> train.jsonl; refuse "labels of another length" 2 "train.jsonl:"
echo '{"input_ids": [1, 2' >> train.jsonl;                 refuse "malformed line" 2 "train.jsonl:"
printf '{"input_ids": "\377"}\n' >> train.jsonl;           refuse "invalid UTF-8" 2 "train.jsonl:"
: > train.jsonl;                                           refuse "empty data" 2 "train.jsonl"
rm train.jsonl;                                            refuse "no data" 2 "train.jsonl"
refuse "too long" 2 "train.jsonl:" --set data.max_length=3
squad=(--set data.format=squad --set data.train_file=squad.json --set data.prompt_template="'{context}{answer}'")
echo '{"version": "v2.0", "data": [{"paragraphs": 5}]}' > squad.json
cp "$LRD_SOURCE_DIR/tests/golden/tokenizer/tokenizer.json" model/
refuse "another model's tokenizer" 2 "do not match" "${squad[@]}"
touch out;                                                 refuse "output folder is a file" 2 out
sed -i 's/learning_rate:/learning_rat:/' config.yaml;      refuse "unknown key" 2 "learning_rate"
refuse "bias" 2 bias --set lora.bias=all
refuse "rank 0" 2 lora.r --set lora.r=0
refuse "nothing to adapt" 2 no_such_module --set lora.target_modules=[no_such_module]
cp -r "$base/adapter" adapter
sed -i 's/"r": [0-9]*/"r": 3/' adapter/adapter_config.json
refuse "adapter of another rank" 2 "lora_A" --set lora.adapter_name_or_path=adapter
refuse "pipeline" 2 pipeline --set parallel.pipeline=7
refuse "not finite" 1 "not finite" --set training.learning_rate=1e38 --set training.warmup_steps=0 \
  --set training.max_nonfinite_steps=3 --set training.max_grad_norm=0 --set training.max_steps=20
refuse "no such option" 2 "--config" --confg x
refuse "no such backend" 2 cuda --backend cuda

[ "$failures" = 0 ] || exit 1
echo PASSED

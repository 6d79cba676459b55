#!/usr/bin/env bash
# Hostile input. Every case, on one rank or several ($1): the expected exit
# code on every rank, one line of error that says what and where, within 20 seconds, nothing half-written.
set -uo pipefail
ranks=${1:-1}
base="$LRD_SOURCE_DIR/tests/golden/runs/all-linear"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
failures=0
export OMP_NUM_THREADS=1 TMPDIR=$work
launch=()
[ "$ranks" = 1 ] || launch=(mpirun -np "$ranks" --bind-to none)

# Leaves the exit code of each rank in codes/.
cat > each_rank.sh <<'SCRIPT'
"$@"
echo $? > "codes/${OMPI_COMM_WORLD_RANK:-0}"
SCRIPT

# fresh: the model and the data, to be spoiled
fresh() {
  rm -rf model adapter out train.jsonl eval.jsonl squad.json config.yaml
  cp -r "$base/model" "$base/adapter" .
  cp "$base/train.jsonl" "$base/eval.jsonl" .
  chmod -R u+w model adapter train.jsonl eval.jsonl
  sed 's/eval_steps.*/eval_steps: null/; s/max_steps.*/max_steps: 2/' "$base/config.yaml" > config.yaml
}

# refuse_command NAME CODE TEXT WORD...: the program must end with this code on all ranks and say this
refuse_command() {
  local name=$1 want=$2 text=$3 code=0 problem= codes begun=$SECONDS
  shift 3
  rm -rf codes stdout stderr
  mkdir codes
  timeout 60 "${launch[@]}" bash each_rank.sh "$LRD_PROGRAM" "$@" > stdout 2> stderr < /dev/null || code=$?
  codes=$(cat codes/* 2> /dev/null | sort | uniq -c | tr -s ' ')
  [ "$code" = 0 ] || problem="; the launcher ended with $code"
  [ "$codes" = " $ranks $want" ] || problem="$problem; exit codes (how often, which):$codes, expected $want"
  grep '^error: ' stderr | grep -qF -- "$text" || problem="$problem; no error line says '$text'"
  [ "$(grep -c '^error: ' stderr)" = 1 ] || problem="$problem; $(grep -c '^error: ' stderr) error lines"
  # Behind the line there is nothing, such as the rest of a message with line ends or a sanitizer's report.
  tail -n 1 stderr | grep -q '^error: ' || problem="$problem; the error line is not the last"
  [ $((SECONDS - begun)) -le 20 ] || problem="$problem; it took $((SECONDS - begun)) s"
  [ ! -e out/adapter_model.safetensors ] || problem="$problem; an adapter was written"
  find . -name '*.partial*' | grep -q . && problem="$problem; something half-written: $(find . -name '*.partial*')"
  if [ -n "$problem" ]; then
    echo "FAILED $name: ${problem#; }"
    tail -n 4 stderr | cut -c1-600 | sed 's/^/    /'
    failures=$((failures + 1))
  else
    echo "ok $name"
  fi
  fresh
}
refuse() { refuse_command "$1" "$2" "$3" --config config.yaml "${@:4}"; }

# set_config KEY VALUE: in model/config.json
set_config() { sed -i -E "s/\"$1\": *[^,]*/\"$1\": $2/" model/config.json; }
# set_header FROM TO: of equal length, in the header of the weights
set_header() { LC_ALL=C sed -i "s/$1/$2/" "${3:-model/model.safetensors}"; }
# set_length BYTES...: the length of the header, as escapes
set_length() { printf "$1" | dd of=model/model.safetensors conv=notrunc status=none; }

fresh
# ---- weights
set_header word_embeddings_layernorm.weight word_embeddings_layernorm.weighs; refuse "missing tensor" 2 'word_embeddings_layernorm.weight" is missing'
truncate -s 5 model/model.safetensors;                     refuse "no header" 2 model.safetensors
truncate -s 0 model/model.safetensors;                     refuse "empty weights" 2 model.safetensors
truncate -s -1 model/model.safetensors;                    refuse "one byte short" 2 model.safetensors
echo >> model/model.safetensors;                           refuse "one byte long" 2 model.safetensors
set_length '\0\0\0\0\0\0\0\0';                             refuse "header of length 0" 2 model.safetensors
set_length '\377\377\377\377\377\377\377\377';             refuse "header of length -1" 2 model.safetensors
set_length '\007\0\0\0\0\0\0\0';                           refuse "header that is cut" 2 model.safetensors
set_header '"dtype":"F32"' '"dtype":"Q32"';                refuse "unknown type" 2 model.safetensors
set_header '"dtype":"F32"' '"dtype":"I64"';                refuse "type of another size" 2 model.safetensors
set_header '"dtype":"F32"' '"dtype":"I32"';                refuse "type of the same size" 2 I32
set_header '"shape":\[96' '"shape":[69';                   refuse "shape that does not fit its bytes" 2 model.safetensors
set_header 'data_offsets":\[[0-9]' 'data_offsets":[9';     refuse "offsets that do not meet" 2 model.safetensors
rm model/model.safetensors; mkdir model/model.safetensors; refuse "weights are a folder" 2 model.safetensors
mv model/model.safetensors model/a.safetensors; echo '{"weight_map": {"h.0.input_layernorm.bias": "../train.jsonl"}}' > model/model.safetensors.index.json
refuse "shard outside the folder" 2 model.safetensors.index.json
mv model/model.safetensors model/a.safetensors; echo '{"weight_map": {"word_embeddings.weight": "b.safetensors"}}' > model/model.safetensors.index.json
refuse "missing shard" 2 b.safetensors
mv model/model.safetensors model/pytorch_model.bin;        refuse "pickled weights only" 2 pytorch_model.bin
rm model/model.safetensors;                                refuse "no weights" 2 "model has no weights"

# ---- config.json
set_config hidden_size 192;                                refuse "other hidden size" 2 shape
set_config hidden_size 97;                                 refuse "hidden size that the heads do not divide" 2 config.json
set_config hidden_size 0;                                  refuse "hidden size 0" 2 hidden_size
set_config hidden_size 1000000000000000000;                refuse "absurd hidden size" 2 config.json
set_config n_head -6;                                      refuse "negative heads" 2 n_head
set_config n_layer 2000000000;                             refuse "absurd number of layers" 2 n_layer
set_config n_layer 1.5;                                    refuse "half a layer" 2 n_layer
set_config vocab_size '"300"';                             refuse "vocabulary as text" 2 vocab_size
set_config layer_norm_epsilon -1;                          refuse "negative epsilon" 2 layer_norm_epsilon
set_config attention_dropout 0.1;                          refuse "attention dropout" 2 attention_dropout
sed -i '/hidden_size/d' model/config.json;                 refuse "no hidden size" 2 config.json
sed -i '/model_type/d' model/config.json;                  refuse "no model type" 2 model_type
echo '[]' > model/config.json;                             refuse "config.json is a list" 2 config.json
: > model/config.json;                                     refuse "config.json is empty" 2 config.json
printf '{"model_type": "\377"}' > model/config.json;       refuse "config.json is not UTF-8" 2 config.json
head -c 100000 /dev/zero | tr '\0' '[' > model/config.json; refuse "deep config.json" 2 config.json
rm model/config.json;                                      refuse "no config.json" 2 config.json
export HF_HOME=$work/home HF_HUB_OFFLINE=1 # tests/hub asks a server
refuse "model of the Hub that is not here" 2 "no folder bigscience/bloom-560m here, and as a name of the Hub: bigscience/bloom-560m@main is not in $work/home/hub" --set model.name_or_path=bigscience/bloom-560m
refuse "publishing without a network"      2 "HF_HUB_OFFLINE is set, which forbids to publish me/a" --set training.push_to_hub=true --set training.hub_model_id=me/a
refuse "data of the Hub that is not here"   2 "no file squad_v2 here, and as a name of the Hub: squad_v2@main is not in $work/home/hub" --set data.train_file=squad_v2
refuse "data that is neither"              2 "no/such/file is no file here, and no name of the Hub" --set data.train_file=no/such/file
refuse "model that is a file" 2 train.jsonl --set model.name_or_path=train.jsonl
set_config vocab_size 700;                                 refuse "other vocabulary" 2 shape
set_config n_layer 30;                                     refuse "more layers" 2 'h.2.input_layernorm.weight'
set_config hidden_dropout 0.1;                             refuse "dropout in the base" 2 hidden_dropout
set_config model_type '"gpt2"';                            refuse "other family" 2 gpt2
rm -r model;                                               refuse "no model" 2 "no model folder model here"

# ---- data
for line in '{"input_ids": []}' '{"input_ids": "1"}' '{"input_ids": [1.5, 2]}' '{"input_ids": [1, 99999999999999999999]}' \
  '{"input_ids": [1, 300]}' '{"input_ids": [1, -2]}' '{"input_ids": [1, 2], "labels": [1]}' \
  '{"input_ids": [1, 9223372036854775807]}' '{"input_ids": [1, 4294967297]}' '{"input_ids": [1, null]}' '{}' '[]' '7' \
  '{"input_ids": [1, 2], "labels": [1, 300]}' '{"input_ids": [1, 2], "labels": [1, -5]}' \
  '{"input_ids": [1, 2], "labels": 5}' '{"input_ids": [1, 2]} {}' '{"input_ids": [1, 2]'; do
  lines=$(wc -l < train.jsonl)
  printf '%s' "$line" >> train.jsonl
  refuse "record $line" 2 "train.jsonl:$((lines + 1))"
done
printf '{"input_ids": [1, 2\0]}\n' > train.jsonl;          refuse "zero byte" 2 "train.jsonl:1"
head -c 100000 /dev/zero | tr '\0' '[' > train.jsonl;      refuse "deep record" 2 "train.jsonl: nested deeper"
printf '\n\n' > train.jsonl;                               refuse "empty lines" 2 train.jsonl
echo '{"input_ids": [1, 2], "labels": [-100, -100]}' > train.jsonl; refuse "nothing to learn" 2 train.jsonl
rm train.jsonl; mkdir train.jsonl;                         refuse "data is a folder" 2 train.jsonl
printf '{"input_ids": "\377"}\n' > train.jsonl;           refuse "record that is not UTF-8" 2 "train.jsonl:1"
: > train.jsonl;                                           refuse "empty data" 2 train.jsonl
rm train.jsonl;                                            refuse "no data" 2 train.jsonl
refuse "too long" 2 "train.jsonl:1" --set data.max_length=3
refuse "all too long" 2 train.jsonl --set data.max_length=3 --set data.on_too_long=drop
echo '{"input_ids": [1, 300]}' >> eval.jsonl
refuse "bad record to evaluate on" 2 "eval.jsonl:" --set training.eval_steps=1
refuse "no data to evaluate on" 2 none.jsonl --set training.eval_steps=1 --set data.eval_file=none.jsonl
squad=(--set data.format=squad --set data.train_file=squad.json --set data.eval_file=null)
# The tokenizer has 420 entries, 120 more than the model: its embedding gets rows of zeros.
python3 - "$base/model/model.safetensors" "$work/model-420.safetensors" <<'PYTHON'
import json, struct, sys
data = open(sys.argv[1], "rb").read()
n = struct.unpack("<Q", data[:8])[0]
header, tensors, more = json.loads(data[8:8 + n]), data[8 + n:], 120 * 96 * 4
grown = header["transformer.word_embeddings.weight"]
end = grown["data_offsets"][1]
for name, t in header.items():
    if name != "__metadata__" and t["data_offsets"][0] >= end:
        t["data_offsets"] = [x + more for x in t["data_offsets"]]
grown["shape"][0], grown["data_offsets"][1] = 420, end + more
text = json.dumps(header).encode()
open(sys.argv[2], "wb").write(struct.pack("<Q", len(text)) + text + tensors[:end] + bytes(more) + tensors[end:])
PYTHON
tokenizer() {
  cp "$LRD_SOURCE_DIR/tests/golden/data/tokenizer.json" model/
  cp model-420.safetensors model/model.safetensors
  set_config vocab_size 420
}
squad_case() { tokenizer; printf "$2" > squad.json; refuse "SQuAD: $1" 2 "${3:-squad.json}" "${squad[@]}"; }
squad_case "not JSON" '{"data": ['
squad_case "empty file" ''
squad_case "invalid UTF-8" '{"data": [{"title": "\377"}]}'
squad_case "no questions" '{"version": "v2.0", "data": []}'
squad_case "no questions in a paragraph" '{"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": []}]}]}'
squad_case "question without an id" '{"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": [{"question": "q", "answers": []}]}]}]}' 'data[0].paragraphs[0].qas[0]'
squad_case "answer that is a number" '{"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": [{"id": "1", "question": "q", "is_impossible": false, "answers": [{"text": 5, "answer_start": 0}]}]}]}]}' 'qas[0].answers[0]'
echo '{"data": []}' > squad.json; cp "$LRD_SOURCE_DIR/tests/golden/tokenizer/tokenizer.json" model/
refuse "another model's tokenizer" 2 "do not match" "${squad[@]}"
echo '{"data": []}' > squad.json;                          refuse "no tokenizer" 2 tokenizer.json "${squad[@]}"
echo '{"data": []}' > squad.json; echo '{' > model/tokenizer.json; refuse "bad tokenizer" 2 tokenizer.json "${squad[@]}"

# ---- settings
sed -i 's/max_steps: 2/max_steps: [2/' config.yaml;        refuse "malformed YAML" 2 config.yaml:
sed -i 's/  lora_alpha: 32/&\n&/' config.yaml;             refuse "key written twice" 2 lora_alpha
printf '\377\n' >> config.yaml;                            refuse "settings that are not UTF-8" 2 config.yaml
rm config.yaml;                                            refuse "no settings" 2 config.yaml
rm config.yaml; mkdir config.yaml;                         refuse "settings are a folder" 2 config.yaml
: > config.yaml;                                           refuse "empty settings" 2 config.yaml
for change in lora.r=x lora.rr=3 lora.r=99999999999999999999 lora.lora_dropout=1.5 lora.lora_alpha=.nan training.learning_rate=-1 \
  training.max_steps=-2 training.per_device_train_batch_size=0 training.warmup_ratio=2 model.dtype=int8 data.format=csv lora.bias=lora_only \
  lora.target_modules=[] "lora.target_modules='('" "lora.rank_pattern={query_key_value: 0}" parallel.data=5 "parallel.device_map={h.0: 0}"; do
  key=${change%%=*}
  refuse "--set $change" 2 "${key%rr}" --set "$change"
done
refuse "no such checkpoint" 2 "training.resume_from_checkpoint: no folder none-such here. Name the folder of a checkpoint" \
  --set training.resume_from_checkpoint=none-such
touch file; refuse "checkpoint that is a file" 2 "training.resume_from_checkpoint: no folder file here" --set training.resume_from_checkpoint=file
refuse "folder that is no checkpoint" 2 "model holds no state.h5: it is not a checkpoint" --set training.resume_from_checkpoint=model
sed -i 's/learning_rate:/learning_rat:/' config.yaml;      refuse "unknown key" 2 "learning_rate"
refuse "bias" 2 bias --set lora.bias=all
refuse "rank 0" 2 lora.r --set lora.r=0
refuse "nothing to adapt" 2 no_such_module --set lora.target_modules=[no_such_module]
refuse "pipeline" 2 parallel.pipeline --set parallel.pipeline=7
refuse "no such backend" 2 cuda --backend cuda
refuse "two sizes of an update" 2 global_batch_size --set training.global_batch_size=4
refuse "evaluation of nothing" 2 eval_steps --set training.eval_steps=1 --set data.eval_file=null

# ---- where results go
touch out;                                                 refuse "output is a file" 2 out
touch file;                                                refuse "output below a file" 2 "the folder file" --set training.output_dir=file/out
refuse "output where nobody can write" 2 /proc/lora-dist --set training.output_dir=/proc/lora-dist

# ---- adapters
from=(--set lora.adapter_name_or_path=adapter)
rm adapter/adapter_config.json;                            refuse "no adapter_config.json" 2 adapter_config.json "${from[@]}"
rm adapter/adapter_model.safetensors;                      refuse "no adapter weights" 2 adapter_model.safetensors "${from[@]}"
truncate -s 1000 adapter/adapter_model.safetensors;        refuse "truncated adapter" 2 adapter_model.safetensors "${from[@]}"
sed -i 's/"bias": *"none"/"bias": "all"/' adapter/adapter_config.json; refuse "adapter with bias" 2 bias "${from[@]}"
sed -i 's/"peft_type": *"LORA"/"peft_type": "IA3"/' adapter/adapter_config.json; refuse "adapter of another kind" 2 IA3 "${from[@]}"
sed -i 's/"use_dora": *false/"use_dora": true/' adapter/adapter_config.json; refuse "DoRA" 2 use_dora "${from[@]}"
set_header 'lora_A.weight' 'lora_C.weight' adapter/adapter_model.safetensors; refuse "adapter without a tensor" 2 'lora_A' "${from[@]}"
sed -i 's/"r": *[0-9]*/"r": 3/' adapter/adapter_config.json; refuse "adapter of another rank" 2 lora_A "${from[@]}"
refuse "no adapter" 2 none-such --set lora.adapter_name_or_path=none-such

# ---- while it runs
refuse "not finite" 1 "max_nonfinite_steps" --set training.learning_rate=1e30 --set training.warmup_steps=0 \
  --set training.max_nonfinite_steps=2 --set training.max_steps=20

# ---- other commands
score() { refuse_command "$1" "$2" "$3" score --model model --data train.jsonl "${@:4}"; }
echo '{"input_ids": [1, 300]}' >> train.jsonl;             score "score: id beyond the vocabulary" 2 train.jsonl:
score "score: no such adapter" 2 none-such --adapter none-such
score "score: logits nowhere" 2 none/such --logits-out none/such
truncate -s 1000 adapter/adapter_model.safetensors;        score "score: truncated adapter" 2 adapter_model.safetensors --adapter adapter
merge() { refuse_command "$1" "$2" "$3" merge --model model --adapter adapter --out out "${@:4}"; }
merge "merge: another element type" 2 "--dtype float16" --dtype float16
merge "merge: no such backend" 2 cuda --backend cuda
mkdir out; touch out/a;                                    merge "merge: output that is there" 2 "is not empty"
touch out;                                                 merge "merge: output that is a file" 2 "is a file"
rm -r adapter;                                             merge "merge: no adapter" 2 adapter
truncate -s 1000 adapter/adapter_model.safetensors;        merge "merge: truncated adapter" 2 adapter_model.safetensors
truncate -s -1 model/model.safetensors;                    merge "merge: truncated weights" 2 model.safetensors
mv model/model.safetensors model/pytorch_model.bin;        merge "merge: pickled weights only" 2 pytorch_model.bin
sed -i 's/"r": *[0-9]*/"r": 3/' adapter/adapter_config.json; merge "merge: adapter of another rank" 2 lora_A
merge_to() { refuse_command "$1" 2 "$3" merge --model model --adapter adapter --out "$2"; }
merge_to "merge: into the base" model "is the base model's folder"
merge_to "merge: below the base" model/a/b/ "or lies in it"
merge_to "merge: where nobody can write" /proc/lora-dist /proc/lora-dist
refuse_command "inspect: no such adapter" 2 none-such inspect --model model --adapter none-such
refuse_command "tokenize: no tokenizer" 2 tokenizer.json tokenize --model model
refuse_command "wrong word" 2 "did you mean score" scor

# A record without targets has no loss, and its line is JSON all the same.
printf '{"input_ids": [1]}\n{"input_ids": [1, 2], "labels": [1, -100]}\n' > few.jsonl
"$LRD_PROGRAM" score --model model --data few.jsonl 2> stderr > stdout
[ "$(cat stdout)" = $'{"n_tokens": 1, "loss": null, "perplexity": null}\n{"n_tokens": 2, "loss": null, "perplexity": null}' ] ||
  { echo "FAILED score of no targets: $(cat stdout stderr)"; failures=$((failures + 1)); }

[ "$failures" = 0 ] || { echo "$failures cases failed"; exit 1; }
echo PASSED

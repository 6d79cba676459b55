#!/usr/bin/env bash
# Names that stand in files never lead out of their folder, and neither do links, where it matters. What lies outside is
# always good: whoever followed the name would succeed. Instead: exit code 2, and words that name file and key.
set -uo pipefail
source "$(dirname "$0")/../support/shell_support.sh"
base="$LRD_SOURCE_DIR/tests/golden/runs/all-linear"
work=$(make_temporary)
remove_at_exit "$work"
cd "$work"
export OMP_NUM_THREADS=1 TMPDIR=$work
failures=0

fresh() {
  rm -rf model outside adapter out merged train.jsonl
  cp -r "$base/model" "$base/adapter" .
  cp "$base/train.jsonl" "$base/eval.jsonl" .
  chmod -R u+w model adapter train.jsonl eval.jsonl
  mkdir outside
}
# run WHAT WORD...: leaves $code and stderr
run() {
  what=$1
  code=0
  shift
  timeout 60 "$LRD_PROGRAM" "$@" > stdout 2> stderr < /dev/null || code=$?
}
problem() {
  failures=$((failures + 1))
  echo "FAILED $what: $1 (exit code $code)"
  tail -n 4 stderr | cut -c1-400 | sed 's/^/    /'
}
refused() { # TEXT...: each stands in the one line of error
  local text line
  [ "$code" = 2 ] || problem "expected exit code 2"
  line=$(grep '^error: ' stderr)
  for text in "$@"; do
    grep -qF -- "$text" <<< "$line" || problem "it does not say '$text'"
  done
  [ "$(wc -l <<< "$line")" = 1 ] || problem "not one line"
  fresh
}
train=(train --config "$base/config.yaml" --set model.name_or_path=model --set data.train_file=train.jsonl
       --set data.eval_file=null --set training.eval_steps=null --set training.max_steps=3
       --set training.save_steps=1 --set training.output_dir=out)
accepted() { [ "$code" = 0 ] || problem "refused"; }

# ---- the index of weights
index() { # NAME, in JSON: the file of every tensor
  python3 - "$1" << 'END'
import json, struct, sys
data = open("model/model.safetensors", "rb").read()
names = [k for k in json.loads(data[8:8 + struct.unpack("<Q", data[:8])[0]]) if k != "__metadata__"]
index = json.dumps({"weight_map": {name: "@" for name in names}}).replace('"@"', sys.argv[1])
open("model/model.safetensors.index.json", "w").write(index)
END
}
fresh
index '"a.safetensors"'
mv model/model.safetensors model/a.safetensors
run "an index" "${train[@]}"
accepted
fresh
for name in ../outside/a.safetensors "$work/outside/a.safetensors" deeper/../../outside/a.safetensors ./a.safetensors \
  deeper/a.safetensors .. . ""; do
  index "\"$name\""
  mkdir model/deeper
  cp model/model.safetensors outside/a.safetensors
  cp model/model.safetensors model/deeper/a.safetensors
  mv model/model.safetensors model/a.safetensors
  run "the index names '$name'" "${train[@]}"
  refused model.safetensors.index.json weight_map "\"$name\""
done
for value in '"a.safetensors\u0000.json"' 5 null '["a.safetensors"]'; do
  index "$value"
  mv model/model.safetensors model/a.safetensors
  run "the index has $value" "${train[@]}"
  refused model.safetensors.index.json 'the file of "'
done
index '"a\n/../../error: x.safetensors"'
mv model/model.safetensors model/a.safetensors
run "the index names lines" "${train[@]}"
refused model.safetensors.index.json weight_map
index '"../outside/a.safetensors"'
mv model/model.safetensors outside/a.safetensors
run "merge: the index names a file outside" merge --model model --adapter adapter --out merged
[ ! -e merged ] || problem "something was written"
refused model.safetensors.index.json weight_map ../outside/a.safetensors

# ---- an adapter's folder: the base's name is no path to follow
cp -r model outside/model
mv model elsewhere
for name in ../outside/model "$work/outside/model"; do
  sed -i "s#\"base_model_name_or_path\": .*,#\"base_model_name_or_path\": \"$name\",#" adapter/adapter_config.json
  run "the adapter names a base" generate --model model --adapter adapter --prompt x
  [ "$code" = 2 ] && grep -q '^error: no model folder model here' stderr || problem "the base was taken from elsewhere"
done
rm -r elsewhere
fresh

# ---- checkpoints: names of other files in their texts, and links in the place of folders
run "a run" "${train[@]}"
accepted
cp -r out/checkpoint-3 outside/checkpoint-3
python3 - << 'END'
import json
path = "out/checkpoint-3/trainer_state.json"
state = json.load(open(path))
state["best_model_checkpoint"] = "../outside/checkpoint-3"
state["best_global_step"] = "../outside/checkpoint-3"
json.dump(state, open(path, "w"))
END
run "a best checkpoint elsewhere" "${train[@]}" --set training.resume_from_checkpoint=out/checkpoint-3 --set training.max_steps=4
[ "$code" = 2 ] && grep -q 'out/checkpoint-3/trainer_state.json.*best_global_step' stderr || problem "it was taken"
fresh
mkdir -p out/checkpoint-.. out/checkpoint-9x out/checkpoint-+7 out/checkpoint-007 out/checkpoint--7
run "folders that are no checkpoints" "${train[@]}"
accepted
ls out | grep -q '^checkpoint-9x$' || problem "another's folder is gone"
fresh
# A link in the place of a checkpoint is removed as such; what it leads to stays.
mkdir -p outside/precious.partial out
echo x > outside/precious.partial/file
ln -s "$work/outside/precious.partial" out/checkpoint-1.partial
ln -s "$work/outside/precious.partial" out/checkpoint-0
ln -s "$work/outside/precious.partial" out/adapter.partial
run "links among checkpoints" "${train[@]}" --set training.save_total_limit=1 --set training.overwrite_output_dir=true
accepted
[ -e outside/precious.partial/file ] || problem "what a link leads to was removed"
[ -z "$(find out -type l)" ] || problem "links are left: $(find out -type l)"
fresh
# Files of the result do not go where links of their names lead.
mkdir out
echo x > outside/file
for name in adapter_model.safetensors adapter_config.json trainer_state.json README.md; do
  ln -s "$work/outside/file" out/$name
done
run "links in the place of results" "${train[@]}"
accepted
[ "$(cat outside/file)" = x ] || problem "a file outside was written to"
[ -z "$(find out -type l)" ] || problem "links are left"
fresh

# ---- a merged model holds no files of others
merge=(merge --model model --adapter adapter --out merged)
echo secret > outside/key
ln -s "$work/outside/key" model/notes.txt
run "merge: a link to a file outside" "${merge[@]}"
[ ! -e merged ] || problem "something was written"
refused model/notes.txt outside/key
echo secret > outside/key
ln -s ../outside/key model/tokenizer_config.json
run "merge: a known name" "${merge[@]}"
refused model/tokenizer_config.json outside/key
echo good > model/a.txt
ln -s a.txt model/b.txt
run "merge: a link inside" "${merge[@]}"
accepted
[ "$(cat merged/b.txt 2> /dev/null)" = good ] || problem "it was not copied"
fresh
# As the Hub's cache has it.
mkdir -p hub/snapshots hub/blobs
mv model hub/snapshots/1
echo good > hub/blobs/1234
ln -s ../../blobs/1234 hub/snapshots/1/notes.txt
run "merge: the Hub's cache" merge --model hub/snapshots/1 --adapter adapter --out merged
accepted
[ "$(cat merged/notes.txt 2> /dev/null)" = good ] && [ ! -L merged/notes.txt ] || problem "it was not copied"
fresh

# ---- prompts name adapters that were given, never folders
write_byte_tokenizer model/tokenizer.json
printf '{"prompt": "x", "adapter": "adapter"}\n' > prompts.jsonl
run "a prompt's adapter" generate --model model --adapter other=adapter --prompt-file prompts.jsonl
refused prompts.jsonl:1 adapter

# ---- secrets of the environment and of wrong settings are told to nobody
secret=hf_abcdefghijklmnopqrstuvwxyz
export HF_TOKEN=$secret HUGGING_FACE_HUB_TOKEN=$secret HUGGINGFACEHUB_API_TOKEN=$secret
run "secrets" "${train[@]}" --log-level debug
accepted
mkdir told
mv stdout stderr told
run "secrets of a merge" merge --model model --adapter adapter --out merged --log-level debug
accepted
mv stdout stderr told
printf 'training:\n  hub_token: %s\n' $secret > config.yaml
run "a token among the settings" train --config config.yaml --log-level debug
[ "$code" = 2 ] && grep -q '^error: .*training.hub_token' stderr || problem "it is not refused by name"
! grep -rlaF $secret told out merged stdout stderr || problem "the secret is there"

[ "$failures" = 0 ] || { echo "$failures cases failed"; exit 1; }
echo PASSED

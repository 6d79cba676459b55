#!/usr/bin/env bash
# The first run: what the base answers, an adapter trained on two ranks, what it answers then.
#
#   examples/almanac/run.sh [RANKS]
#
# Needs the program (launch/setup.sh); launch/run_local.sh calls this. Writes out-almanac/ in the current folder.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
ranks=${1:-2}
program=${LRD_PROGRAM:-$root/build/cpu-release/src/app/lora-dist}
out=$PWD/out-almanac
cd "$root"
source launch/signals.sh

launch=(run_signalled bash launch/ranks.sh "$ranks") # a signal ends what is at work, and with it this script
config=(--config configs/almanac.yaml --set "training.output_dir=$out")

scores() { # FILE: exact and f1 of an evaluation's output
    sed -n 's/^ *"\(exact\|f1\)": *\([0-9.]*\).*/\2/p' "$1" | xargs printf '%.1f %.1f\n'
}
answer() { # PROMPT-FILE [OPTION...]: what is generated, on one line
    local prompt
    prompt=$(cat "$1" && echo .)
    "$program" generate --model examples/almanac/model --log-level error --max-new-tokens 24 --prompt "${prompt%.}" "${@:2}" |
        tr '\n' ' ' | sed 's/  *$//'
}
field() { # PROMPT-FILE HEADING: the line below "### HEADING"
    sed -n "/^### $2\$/{n;p;}" "$1"
}

echo "== The base model answers questions about passages it never saw"
mkdir -p "$out"
"${launch[@]}" "$program" eval "${config[@]}" --max-new-tokens 24 --output "$out/base-predictions.json" --log-level warn >"$out/base-scores.json"
echo "== An adapter learns from 2,000 other questions, on $ranks ranks"
"${launch[@]}" "$program" train "${config[@]}"
echo "== The base with the adapter answers them"
"${launch[@]}" "$program" eval "${config[@]}" --adapter "$out" --max-new-tokens 24 --output "$out/predictions.json" --log-level warn >"$out/scores.json"

read -r base_exact base_f1 < <(scores "$out/base-scores.json")
read -r exact f1 < <(scores "$out/scores.json")
printf '\n%-34s %8s %8s\n' "held-out questions" exact F1
printf '%-34s %8s %8s\n' "base" "$base_exact" "$base_f1" "base + adapter ($(du -k "$out/adapter_model.safetensors" | cut -f1) KiB)" "$exact" "$f1"
for prompt in "$here"/prompts/*.txt; do
    printf '\n%s\n' "$(field "$prompt" QUESTION)"
    printf '  base            %s\n' "$(answer "$prompt")"
    printf '  base + adapter  %s\n' "$(answer "$prompt" --adapter "$out")"
done
"$program" report "$out" --log-level warn
printf '\nA page about the run: %s\n' "$out/report.html"
printf 'The adapter is in %s. Ask it yourself:\n' "$out"
printf '  %s generate --model %s --adapter almanac=%s\n' "$program" "$here/model" "$out"

#!/usr/bin/env bash
# Everything that a machine with a GPU can say about the CUDA back end, in less than ten minutes, into one report. Every part
# has a limit of time and is written down as it comes; a part that fails does not stop the next, and one for which no time is
# left is named.
#
#   launch/gpu_check.sh [--no-build] [--dry-run] [--seconds N] [REPORT]
#
#   --no-build   take build/cuda-release as it is; a bundle (launch/bundle.sh --tests) never builds
#   --dry-run    checks of correctness for a few seconds each, benchmarks in small sizes: that every command starts and none
#                fails; on any back end `cuda`, the emulated one too (LRD_CUDA_PLUGIN)
#   --seconds N  for all of it, the build apart: 570 unless given
#   REPORT       gpu_report.txt unless named; beside it REPORT.compare.md and .json, REPORT.tuned.md and .json,
#                REPORT.tuning.json
#
# In this order: does it run (the device, equal rows at different numbers of rows, streams and graphs); are the ops right; what
# do memcheck and racecheck say of them, where compute-sanitizer is installed; are the training runs right; are two ranks on
# one GPU right, and on two, where there are two; how long does each op take beside the least that it must do; which
# algorithms does tuning choose; how fast are training beside PEFT and steps of generation; how fast is training as tuned.
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
if [[ -x $root/run && ${LRD_BUNDLE:-} != "$root" ]]; then
    exec "$root/run" bash "$root/launch/gpu_check.sh" "$@"
fi
build=true
dry=false
seconds=570
while [[ ${1:-} == -* ]]; do
    case $1 in
    --no-build) build=false ;;
    --dry-run) dry=true ;;
    --seconds)
        seconds=${2:?"--seconds needs a number"}
        shift
        ;;
    -h | --help)
        sed -n '2,20s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *)
        echo "gpu_check.sh: unknown option $1 (--no-build, --dry-run, --seconds)" >&2
        exit 2
        ;;
    esac
    shift
done
report=$(realpath -m "${1:-gpu_report.txt}")
if [[ -n ${LRD_BUNDLE:-} ]]; then
    programs=$root/bin
    nccl=$root/lib/liblrd_nccl.so
else
    programs=${LRD_BINARY_DIR:-$root/build/cuda-release}
    if $build; then (cd "$root" && bash launch/setup.sh --tests --cuda) || exit 1; fi
    export LRD_PROGRAM=$programs/src/app/lora-dist
    export LRD_CUDA_PLUGIN=${LRD_CUDA_PLUGIN:-$programs/src/app/liblrd_cuda.so}
    nccl=$programs/src/app/liblrd_nccl.so
fi
export LRD_NCCL_PLUGIN=${LRD_NCCL_PLUGIN:-$nccl}
export LRD_SOURCE_DIR=$root OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 programs
PATH=$PATH:${CUDA_HOME:-/usr/local/cuda}/bin # for compute-sanitizer
work=$(mktemp -d)
cd "$work" || exit 1
exec > >(exec tee "$report") 2>&1
writer=$!
trap 'exec >&- 2>&-; wait "$writer"; rm -rf "$work"' EXIT # the report is complete when this ends
began=$SECONDS
failed=()
left_out=()
left() { echo $((seconds - (SECONDS - began))); }

part() { # seconds, title, command...
    local limit=$1 title=$2 started=$SECONDS code=0
    shift 2
    ! $dry || limit=$dry_limit
    ((limit <= $(left))) || limit=$(left)
    echo
    echo "==== $title"
    if ((limit < 1)); then
        echo "---- $title: left out, the time is up"
        left_out+=("$title")
        return
    fi
    part_limit=$limit timeout -k 2 "$limit" "$@" || code=$?
    echo "---- $title: exit code $code after $((SECONDS - started)) s"
    ((code == 0 || code == 77)) || { $dry && ((code == 124)); } || failed+=("$title")
}

program() { # NAME: of a test or a benchmark, wherever it was built
    find "$programs" -type f -name "$1" -perm -u+x -print -quit
}
run() { # NAME ARGUMENT...
    local path
    path=$(program "$1")
    [[ -n $path ]] || { echo "there is no $1 in $programs"; return 1; }
    "$path" "${@:2}"
}
each() { # FUNCTION ARGUMENT...: for each line of arguments; the first failure is the code, and stops nothing
    local code=0 words
    while read -ra words; do
        echo "-- $* ${words[*]}"
        "$@" "${words[@]}" </dev/null || { ((code != 0)) || code=$?; }
    done
    return "$code"
}
at_once() { # as each, with all lines at the same time and an end for them before the part's; what they say comes in order
    local code=0 i words titles=() place
    place=$(mktemp -d -p .)
    while read -ra words; do
        titles+=("$* ${words[*]}")
        {
            timeout -k 1 $((part_limit > 1 ? part_limit - 1 : 1)) bash -c '"$@"' bash "$@" "${words[@]}" >"$place/${#titles[@]}" 2>&1 </dev/null
            echo $? >"$place/${#titles[@]}.code"
        } &
    done
    wait
    for i in "${!titles[@]}"; do
        echo "-- ${titles[i]}: exit code $(<"$place/$((i + 1)).code")"
        tail -n 60 "$place/$((i + 1))"
        ((code != 0)) || code=$(<"$place/$((i + 1)).code")
    done
    return "$code"
}
families() { printf '%s\n' norm linear attention cached head merge products rows sample single update; }
ops() { families | at_once family_of_ops; }
streams_and_graphs() {
    run test_streams --backend cuda && run test_graphs cuda
}
equal_rows() {
    local code=0
    printf '%s\n' rows single | each family_of_ops || code=$?
    run test_company --backend cuda || code=$?
    return "$code"
}
family_of_ops() { run "test_ops_$1" --backend cuda; }
golden() {
    local case dtype
    for case in qkv all-linear post-layernorm head80 head128-untied; do
        for dtype in float32 bfloat16 float16; do
            [[ $case-$dtype == post-layernorm-bfloat16 ]] || echo "$case $dtype"
        done
    done | at_once golden_run
}
golden_run() { # CASE DTYPE [RANKS SETTING...]
    local code=0
    OMP_NUM_THREADS=2 run test_golden "$1" "$2" "${3:-1}" cuda "${@:4}" || code=$?
    return $((code == 77 ? 0 : code)) # the case is not here
}
on_two() { mpirun -np 2 --bind-to none "$(program "$1")" "${@:2}"; }
two_ranks() { # replicas, and layers on both
    local code=0 shared=parallel.ranks_per_device=2
    on_two test_reduce --backend cuda || code=$?
    printf '%s\n' "$shared training.gradient_accumulation_steps=null training.global_batch_size=16" "$shared parallel.pipeline=2" |
        each golden_run qkv float32 2 || code=$?
    return "$code"
}
two_devices() { on_two test_devcomm && on_two test_reduce --backend cuda --direct; }
sanitize() { families | at_once sanitize_one "$@"; } # TOOL OPTION...
sanitize_one() { # TOOL OPTION... FAMILY
    compute-sanitizer --tool "${@:1:$#-1}" --error-exitcode 9 --print-limit 20 "$(program "test_ops_${*: -1}")" --backend cuda
}
tune() { # HIDDEN LAYERS HEADS VOCABULARY TOKENS
    mkdir -p shape
    echo "{\"model_type\": \"bloom\", \"hidden_size\": $1, \"n_layer\": $2, \"n_head\": $3, \"vocab_size\": $4, \"torch_dtype\": \"bfloat16\"}" \
        >shape/config.json
    echo "{model: {name_or_path: shape}, training: {max_tokens_per_micro_batch: $5}}" >shape/config.yaml
    "$LRD_PROGRAM" tune --config shape/config.yaml --backend cuda --out tuning.json
}
compare() { # OUT OPTION...
    python3 "$root/bench/gpu_compare.py" --backend cuda --out "$1" "${@:2}"
}
export -f program run each at_once families ops equal_rows streams_and_graphs family_of_ops golden golden_run on_two two_ranks \
    two_devices sanitize sanitize_one tune compare
export root

if command -v nvidia-smi >/dev/null; then nvidia-smi; fi
"$LRD_PROGRAM" info | tee info.txt
if ! grep -q '^backend cuda: device ' info.txt; then
    echo "No CUDA device: nothing to check"
    exit 77
fi
speed=(--hidden 64 --heads 4 --vocab 512 --tokens 64 --length 32 --context 140 --repeat 1)
shape=(32 1 2 64 16)
models=(tiny)
cases=(2x16)
less=(--dtypes bfloat16 --steps 3 --generate 1)
if ! $dry; then
    speed=()
    shape=(2560 30 32 250880 8192)
    models=(3b 7b1 560m 1b7)
    cases=(4x512 16x512 packed:8192)
    less=(--generate 1 8 32)
fi
dry_limit=3 # to start and not to fail at once
part 30 "equal rows" bash -c equal_rows
part 20 "streams and graphs" bash -c streams_and_graphs
part 60 "ops" bash -c ops
if command -v compute-sanitizer >/dev/null; then
    part 60 "memcheck" bash -c 'sanitize memcheck --report-api-errors no' # each call is checked where it is made
    part 60 "racecheck" bash -c 'sanitize racecheck'
else
    echo "compute-sanitizer is not installed: no memcheck, no racecheck"
fi
part 90 "training runs" bash -c golden
part 40 "two ranks on one device" bash -c two_ranks
devices=$(nvidia-smi -L 2>/dev/null | wc -l)
((devices < 2)) || [[ ! -e $LRD_NCCL_PLUGIN ]] || part 30 "two devices" bash -c two_devices
dry_limit=90 # small sizes, to the end
while read -r model hidden heads; do
    part 20 "ops of $model" bash -c 'run op_speed --backend cuda "$@"' bash --hidden "$hidden" --heads "$heads" "${speed[@]}"
    ! $dry || break
done <<END
bloom-3b 2560 32
bloom-560m 1024 16
bloom-7b1 4096 32
END
part 60 "tuning for bloom-3b" bash -c 'tune "$@"' bash "${shape[@]}"
[[ ! -s tuning.json ]] || cp tuning.json "$report.tuning.json"
if command -v python3 >/dev/null; then
    budget=$(($(left) - 55)) # for what comes behind
    part "$budget" "beside PEFT" bash -c 'compare "$@"' bash "$report.compare" --models "${models[@]}" --cases "${cases[@]}" \
        "${less[@]}" --budget $((budget - 10))
    ! [[ -s tuning.json ]] || $dry || part 50 "bloom-3b as tuned" bash -c 'compare "$@"' bash "$report.tuned" --models "${models[0]}" \
        --cases "${cases[-1]}" --dtypes bfloat16 --tuning-file "$work/tuning.json" --budget 45 --no-peft
else
    echo "python3 is not installed: no comparison with PEFT"
fi
echo
echo "$((SECONDS - began)) of $seconds s"
((${#left_out[@]} == 0)) || echo "LEFT OUT: ${left_out[*]}"
if ((${#failed[@]} > 0)); then
    echo "FAILED: ${failed[*]}"
    exit 1
fi
echo "All parts passed"

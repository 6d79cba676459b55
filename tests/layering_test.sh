#!/usr/bin/env bash
# The layers and the banned calls, read from the sources.
#
#   base <- kernels <- {comm, data, lora, hub} <- model <- {train, infer, report} <- app
#
# A file may include its own layer and those to the left of it; layers in braces never include each other. Only
# src/comm includes mpi.h, only kernels/ includes immintrin.h. exit(), abort() and assert() stand in src/app/main.c only;
# strcpy, sprintf, strcat, gets and atoi nowhere.
#
#   tests/layering_test.sh          checks this tree, and itself on planted violations
#   tests/layering_test.sh FOLDER   checks the src/ and kernels/ in a folder
set -euo pipefail

declare -A rank=([base]=0 [kernels]=1 [comm]=2 [data]=2 [lora]=2 [hub]=2 [model]=3 [train]=4 [infer]=4 [report]=4 [app]=5)
problems=0

complain() {
    echo "$1" >&2
    problems=$((problems + 1))
}

check_include() { # file, line, layer of the file, what it includes
    local file=$1 line=$2 layer=$3 included=$4 other=${4%%/*}
    case $included in
    mpi.h | mpi-ext.h)
        [[ $layer == comm ]] || complain "$file:$line: only src/comm includes $included"
        ;;
    *intrin.h)
        [[ $layer == kernels ]] || complain "$file:$line: only kernels/ includes $included"
        ;;
    */*)
        [[ -n ${rank[$other]:-} && -n ${rank[$layer]:-} && $other != "$layer" ]] || return 0
        if ((rank[$other] >= rank[$layer])); then
            complain "$file:$line: $layer must not include $other ($included)"
        fi
        ;;
    esac
}

# The code of C files, as FILE:LINE:CODE: comments and the insides of texts blanked.
code_of() {
    awk '
    FNR == 1 { inside = 0 }
    {
        line = $0; out = ""
        while (line != "") {
            if (inside) {
                at = index(line, "*/")
                if (at == 0) { line = ""; break }
                line = substr(line, at + 2); inside = 0
            } else if (match(line, /^"([^"\\]|\\.)*"/) || match(line, /^\047([^\047\\]|\\.)*\047/)) {
                out = out "\"\""; line = substr(line, RLENGTH + 1)
            } else if (substr(line, 1, 2) == "/*") { inside = 1; line = substr(line, 3) }
            else if (substr(line, 1, 2) == "//") line = ""
            else if (match(line, /^[^"\047\/]+/)) {
                out = out substr(line, 1, RLENGTH); line = substr(line, RLENGTH + 1)
            } else { out = out substr(line, 1, 1); line = substr(line, 2) }
        }
        print FILENAME ":" FNR ":" out
    }' "$@"
}

# From code_of. Not a member of a table, such as comm->table->abort(...).
calls_of() { # words
    grep -E "^[^:]*:[0-9]+:(.*[^A-Za-z0-9_>.])?($1)[[:space:]]*\(" || true
}

# The includes of C files, as FILE:LINE:NAME.
includes_of() {
    awk 'match($0, /^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"][^>"]*/) {
        name = substr($0, RSTART, RLENGTH)
        sub(/^[^<"]*[<"]/, "", name)
        print FILENAME ":" FNR ":" name
    }' "$@"
}

check_tree() {
    local root=$1 file layer line included hit code
    local files=()
    problems=0
    code=$(mktemp)
    mapfile -t files < <(cd "$root" && find src kernels -type f \
        \( -name '*.c' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) | sort)
    if ((${#files[@]} == 0)); then
        complain "$root: no sources under src/ and kernels/"
        return 1
    fi
    for file in "${files[@]}"; do
        layer=${file#src/}
        layer=${layer%%/*}
        [[ -n ${rank[$layer]:-} ]] || complain "$file: no layer of that name"
    done
    while IFS=: read -r file line included; do
        layer=${file#src/}
        check_include "$file" "$line" "${layer%%/*}" "$included"
    done < <(cd "$root" && includes_of "${files[@]}")
    (cd "$root" && code_of "${files[@]}") >"$code"
    while IFS= read -r hit; do
        complain "$hit: banned call"
    done < <(calls_of 'strcpy|sprintf|strcat|gets|atoi' <"$code")
    while IFS= read -r hit; do
        complain "$hit: only src/app/main.c may end the process"
    done < <(grep -v '^src/app/main.c:' "$code" | calls_of 'exit|_exit|abort|assert')
    rm -f "$code"
    echo "${#files[@]} files, $problems violations"
    ((problems == 0))
}

if (($# > 0)); then
    check_tree "$1"
    exit
fi

check_tree "${LRD_SOURCE_DIR:-$(cd "$(dirname "$0")/.." && pwd)}"

# The same on planted trees: each line below must be found in an otherwise clean tree.
planted=$(mktemp -d)
trap 'rm -rf "$planted"' EXIT
clean() {
    rm -rf "$planted/src" "$planted/kernels"
    mkdir -p "$planted/src/"{base,comm,data,lora,model,train,infer,report,app} "$planted/kernels/cpu"
    printf '#include <mpi.h>\n/* abort() and "strcpy(" in a comment */\nconst char *t = "exit(";\n' >"$planted/src/comm/a.c"
    printf '#include "base/a.h"\n#include <immintrin.h>\nt->abort(t);\n' >"$planted/kernels/cpu/a.c"
    printf '#include "train/a.h"\n#include "base/a.h"\nint main(void) { exit(0); }\n' >"$planted/src/app/main.c"
}
expect_violation() { # file, line of C
    clean
    echo "$2" >"$planted/$1"
    if bash "$0" "$planted" >"$planted/log" 2>&1; then
        echo "planted in $1 and not found: $2" >&2
        exit 1
    fi
    grep -q "^$1:" "$planted/log" || { echo "found elsewhere: $2" >&2; cat "$planted/log" >&2; exit 1; }
}
clean
check_tree "$planted"
expect_violation src/base/b.c '#include "kernels/ops.h"'
expect_violation kernels/b.h '#include "data/text.h"'
expect_violation src/data/b.c '#include "lora/target.h"'
expect_violation src/model/b.c '#  include "train/step.h"'
expect_violation src/train/b.c '#include "infer/generate.h"'
expect_violation src/train/b.c '#include "app/cli.h"'
expect_violation src/report/b.c '#include "train/history.h"'
expect_violation src/model/b.c '#include <mpi.h>'
expect_violation src/model/b.c '#include <immintrin.h>'
expect_violation src/train/b.c '    exit(1);'
expect_violation src/app/b.c 'if (x) abort();'
expect_violation kernels/b.c '/* so */ assert(x == 1);'
expect_violation src/comm/b.c 'strcpy(a, "b");'
expect_violation src/comm/b.c 'n = x > 0 ? x : atoi(text);'
echo "planted violations: all found"

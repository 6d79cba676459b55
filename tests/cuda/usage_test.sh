#!/usr/bin/env bash
# Registers and spills of every kernel for every target, from ptxas's reports that the build keeps (record_usage.sh).
#
#   usage_test.sh FOLDER   the folder of the *.usage files
#
# Bounds: kernels run in blocks of 128 or 256 threads, at least two of which should fit into a multiprocessor's 65,536
# registers: 128 for 256 threads, 255 (all there are) for the 128 of attention. Spills only there, up to 32 bytes,
# since sums fill the registers.
set -euo pipefail
cat "$1"/*.usage | awk '
    /Compiling entry function/ {
        match($0, /\047[^\047]+\047 for \047[^\047]+\047/)
        kernel = substr($0, RSTART, RLENGTH)
        n++
    }
    /bytes spill stores/ {
        match($0, /[0-9]+ bytes spill stores/)
        spill = substr($0, RSTART, RLENGTH) + 0
    }
    /Used [0-9]+ registers/ {
        match($0, /Used [0-9]+/)
        registers = substr($0, RSTART + 5, RLENGTH - 5) + 0
        most = kernel ~ /attn_(forward|backward)/ ? 255 : 128
        allowed = kernel ~ /attn_(forward|backward)/ ? 32 : 0
        if (registers > most || spill > allowed) {
            printf "%s: %d registers (bound %d), %d bytes of spills (bound %d)\n", kernel, registers, most, spill, allowed
            bad++
        }
        worst = registers > worst ? registers : worst
    }
    END {
        printf "%d kernels, at most %d registers\n", n, worst
        exit !(n > 100 && !bad)
    }'

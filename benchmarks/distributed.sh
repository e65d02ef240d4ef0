#!/bin/bash
# Builds and runs what several GPUs of one host do together, one process for each, without MPI.
#
#   benchmarks/distributed.sh [build] [reduce] [model] [killed]     without a step: all of them
#
# RANKS (all GPUs), BLOCKS (32), ARCH (90), WORK (build/distributed). NCCL is looked for where CUDA and where Python keep
# it, or in NCCL, a folder with include and lib. Eigen and Catch2 are not needed.
set -u
cd "$(dirname "$0")/.." || exit 2
work=${WORK:-build/distributed}
ranks=${RANKS:-$(nvidia-smi -L | wc -l)}
mkdir -p "$work"

library_in() { find -L "$1"/lib* -maxdepth 2 -name 'libnccl.so*' 2> /dev/null | sort | head -1; }

find_nccl() {
    local folder
    for folder in "${NCCL:-}" /usr /usr/local /usr/local/cuda \
        $(python3 -c 'import nvidia.nccl; print(*nvidia.nccl.__path__)' 2> /dev/null); do
        [ -n "$folder" ] && [ -e "$folder/include/nccl.h" ] && [ -n "$(library_in "$folder")" ] && echo "$folder" && return
    done
    echo "no nccl.h with its library found: NCCL names a folder with include and lib" >&2
    return 1
}

build() {
    local nccl library
    nccl=$(find_nccl) || exit 2
    library=$(library_in "$nccl")
    echo "NCCL: $nccl, $library"
    nvcc -std=c++20 --expt-relaxed-constexpr -arch="sm_${ARCH:-90}" -O2 --split-compile=0 -Iinclude -isystem "$nccl/include" \
        -DRESIDUA_NCCL benchmarks/distributed.cu -o "$work/distributed" -lcublas -lcusolver "$library" \
        -Xlinker -rpath="$(dirname "$library")" 2>&1 | grep -E 'error|fatal|undefined' | head -20
    [ -x "$work/distributed" ] || exit 2
}

# on RANKS WORK...: one process for each GPU. The exit statuses, one a rank, are in $statuses.
on() {
    local count=$1 what=$2 folder rank pids=()
    shift 2
    folder=$(mktemp -d)
    for ((rank = 0; rank < count; ++rank)); do
        NCCL_NVLS_ENABLE=0 "$work/distributed" "$what" "$rank" "$count" "$folder/rendezvous" "$@" &
        pids+=($!)
    done
    statuses=
    for rank in "${!pids[@]}"; do
        wait "${pids[$rank]}"
        statuses+="$? "
    done
    rm -r "$folder"
}

reduce() { on "$ranks" reduce; echo "exit: $statuses"; }

model() {
    local count
    for ((count = 1; count <= ranks; count *= 2)); do
        on "$count" model "${BLOCKS:-32}"
        echo "exit: $statuses"
    done | tee "$work/model.txt"
    # Of the same method, ordered: the same codes by any number of GPUs; and what they gain.
    awk '/accumulate/ {
        key = $1 " " $2; total = $0; sub(/.*= */, "", total); codes = $NF
        if ($3 == 1) { one[key] = total + 0; of_one[key] = codes; next }
        printf "%-14s %d GPUs: %.2f times faster, %s\n", key, $3, one[key] / (total + 0),
            codes == of_one[key] ? "the same codes" : "other codes"
    }' "$work/model.txt"
}

killed() {
    local started
    started=$(date +%s)
    on "$ranks" killed
    echo "a rank was killed: exit $statuses after $(($(date +%s) - started)) s, its timeout is 10 s"
}

[ $# -gt 0 ] || set -- build reduce model killed
for step in "$@"; do
    case $step in
        build | reduce | model | killed) $step ;;
        *) echo "unknown step $step" >&2; exit 2 ;;
    esac
done

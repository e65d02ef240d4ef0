#!/bin/sh
# Builds, checks and times the CUDA backend in one go, for a machine with a GPU.
#
#   benchmarks/device.sh [build] [test] [sanitize] [ceilings] [table] [extra] [large] [profile]
#
# Without a step: all but profile.
#
# DEPENDENCIES names folders with Eigen, Catch2 and nlohmann_json; ARCH the architecture; OUT a folder for logs.
set -u
cd "$(dirname "$0")/.."
out=${OUT:-build/device}
work=${WORK:-build/device}
arch=${ARCH:-90}
mkdir -p "$out" "$work"
flags="-std=c++20 --expt-relaxed-constexpr -arch=sm_$arch -O2 ${OVERLAY:+-I$OVERLAY} -Iinclude -Itests -Iexamples"
for folder in ${DEPENDENCIES:-/usr/include/eigen3}; do flags="$flags -isystem $folder"; done
flags="$flags -DRESIDUA_TEST_DATA_DIR=\"$PWD/tests/data\" -DRESIDUA_EXAMPLE_DATA_DIR=\"$PWD/examples/data\""

build() {
    for source in tests/main.cpp ${SOURCES:-tests/cuda/*.cu} benchmarks/layers.cu; do
        object=$work/$(basename "$source").o
        (nvcc $flags -c "$source" -o "$object" >"$object.log" 2>&1 || echo "FAILED $source") &
    done
    wait
    cat "$work"/*.log | grep -E "error|FAILED" | head -20
    nvcc -arch=sm_$arch "$work"/layers.cu.o -o "$work/layers" -lcublas -lcusolver
    rm -f "$work/layers.cu.o"
    catch=$(find /usr /opt -name 'libCatch2.a' 2>/dev/null | head -1)  # version 3; 2 has no library
    nvcc -arch=sm_$arch "$work"/*.o $catch -o "$work/tests" -lcublas -lcusolver 2>&1 | tail -5
}

check() {
    for tag in golden reference invariants report trouble consume backend parity moments accumulation "cuda]~[parity]~[accumulation"; do
        log="$out/tests_$(echo "$tag" | cut -c1-6).log"
        (timeout ${TEST_SECONDS:-150} "$work/tests" "[$tag]" >"$log" 2>&1; echo "[$tag] exit $?: $(tail -2 "$log" | tr '\n' ' ')") &
    done
    wait
    cat "$out"/tests_*.log | grep -E -A12 "FAILED:|unexpected exception" | tail -40
}

sanitize() {
    for tool in memcheck racecheck initcheck; do
        echo "== $tool"
        timeout 150 compute-sanitizer --tool $tool --error-exitcode 9 "$work/tests" "[sanitize]" >"$out/$tool.log" 2>&1
        echo "exit $?"
        grep -E "ERROR SUMMARY|RACECHECK SUMMARY|=========.*(Invalid|hazard|Uninit)" "$out/$tool.log" | sort | uniq -c | head -8
    done
}

table() {
    for n in 4096 14336; do "$work/layers" accumulate $n; done
    for shape in "4096 4096" "14336 4096" "4096 14336"; do
        for rule in gptq gptaq rescomp shifted; do "$work/layers" solve $rule $shape reps=5; done
    done
}

extra() {
    "$work/layers" solve gptq 4096 4096 clip
    "$work/layers" solve gptq 4096 4096 act
    for rule in gptq gptaq shifted; do
        "$work/layers" solve $rule 4096 4096 objective reps=1
        "$work/layers" solve $rule 4096 4096 objective reps=1 tf32
        "$work/layers" solve $rule 4096 14336 reps=3 tf32
    done
}

large() {
    for rule in gptaq shifted; do "$work/layers" solve $rule 16384 53248 reps=1 tokens=4096; done
}

profile() {
    for rule in ${PROFILE:-gptq gptaq}; do
        ncu --clock-control none --metrics gpu__time_duration.sum --csv "$work/layers" solve $rule 4096 4096 reps=1 \
            tokens=4096 >"$out/$rule.csv" 2>"$out/$rule.err"
        python3 benchmarks/kernel_times.py "$out/$rule.csv"
    done
    ncu --clock-control none --set full --import-source no -k regex:sweep_kernel -s 40 -c 1 -f -o "$work/sweep" \
        "$work/layers" solve gptq 4096 4096 reps=1 tokens=4096 >/dev/null 2>&1
    ncu -i "$work/sweep.ncu-rep" --page source --csv >"$out/sweep_source.csv"
    ncu -i "$work/sweep.ncu-rep" --page details >"$out/sweep_details.txt"
}

[ $# -gt 0 ] || set -- build test sanitize ceilings table extra large
for step in "$@"; do
    case $step in
        build) build ;;
        test) check ;;
        sanitize) sanitize ;;
        ceilings) "$work/layers" ceilings ;;
        table) table ;;
        extra) extra ;;
        large) large ;;
        profile) profile ;;
    esac
    echo "-- $step: $(date +%T)"
done

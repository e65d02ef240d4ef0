#!/usr/bin/env bash
# The checks of docs/reliability.md that take too long for every change. Each prints its figures.
#
#   cmake/reliability.sh compilers          the headers as C++20 and C++23 by every compiler here, libc++ included
#   cmake/reliability.sh aarch64            tests of core, io and solver, cross-compiled, under qemu
#   cmake/reliability.sh fuzz [seconds]     both fuzzers of tests/fuzz and that of safetensors, 600 s each
#   cmake/reliability.sh kills [count]      llama_quantize killed at random moments and resumed, 100 times
#   cmake/reliability.sh coverage           lines of include/residua, without cuda/, that the tests run
#   cmake/reliability.sh tidy               clang-tidy with the list of .clang-tidy
#
# On Debian 12: apt-get install clang-16 libc++-16-dev libc++abi-16-dev g++-aarch64-linux-gnu qemu-user clang-tidy
set -euo pipefail
cd "$(dirname "$0")/.."
build=${RELIABILITY_BUILD:-build/reliability}
mkdir -p "$build"

have() { command -v "$1" > /dev/null; }
eigen=$(echo '#include <Eigen/Core>' | g++ -E -x c++ - -I/usr/local/include/eigen3 -I/usr/include/eigen3 2> /dev/null |
    sed -n 's|^# 1 "\(.*\)/Eigen/Core".*|\1|p' | head -n 1)

compilers() {
    local compiler standard library
    for compiler in g++ g++-{13,14,15} clang++ clang++-{15,16,17,18,19}; do
        have "$compiler" || continue
        for standard in c++20 c++2b; do
            for library in "" "-stdlib=libc++"; do
                if [ -n "$library" ]; then
                    [[ $compiler == clang* ]] && echo '#include <version>' |
                        "$compiler" -x c++ "$library" -fsyntax-only - 2> /dev/null || continue
                fi
                "$compiler" -std=$standard $library -Wall -Wextra -Werror -fsyntax-only -Iinclude -isystem "$eigen" \
                    tests/headers/umbrellas.cpp
                echo "$compiler -std=$standard $library: compiles"
            done
        done
    done
}

aarch64() {
    local room
    mkdir -p "$build/aarch64"
    for room in core io solver; do
        local sources=() source
        while IFS= read -r source; do sources+=("$source"); done < <(find tests/$room -name '*.cpp' | sort)
        # main.cpp first: with Catch2 2 it is the one that defines what the others use
        printf '#include "%s"\n' "$PWD/tests/main.cpp" "${sources[@]/#/$PWD/}" > "$build/aarch64/$room.cpp"
        aarch64-linux-gnu-g++ -std=c++20 -O1 -Wall -Wextra -Iinclude -Itests -Iexamples -isystem "$eigen" \
            -idirafter /usr/include -static -DRESIDUA_TEST_FLOAT_ONLY \
            -DRESIDUA_TEST_DATA_DIR="\"$PWD/tests/data\"" -DRESIDUA_EXAMPLE_DATA_DIR="\"$PWD/examples/data\"" \
            "$build/aarch64/$room.cpp" -o "$build/aarch64/$room"
        echo "aarch64, $room: $(qemu-aarch64 "$build/aarch64/$room" | tail -n 2 | head -n 1)"
    done
}

fuzz() {
    local seconds=${1:-600} name source corpus
    for name in formats solver safetensors; do
        source=tests/fuzz/${name}_fuzzer.cpp corpus=tests/fuzz/corpus/$name
        [ $name = safetensors ] && source=tests/io/fuzz/safetensors_fuzzer.cpp corpus=tests/io/fuzz/corpus
        clang++ -std=c++20 -g1 -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iinclude -Iexamples \
            -isystem "$eigen" "$source" -o "$build/${name}_fuzzer"
        mkdir -p "$build/found_$name"
        "$build/${name}_fuzzer" -max_total_time="$seconds" -rss_limit_mb=4096 -malloc_limit_mb=2048 -print_final_stats=1 \
            "$build/found_$name" "$corpus" 2>&1 | tail -n 12 |
            sed -n "s/^stat::number_of_executed_units: */$name, executions: /p; /ERROR\|SUMMARY\|Test unit/p"
    done
}

kills() {
    local count=${1:-100} program=${LLAMA_QUANTIZE:-build/test/examples/llama_quantize} i folder
    local run=("$program" --window 64 --calibration-windows 2 --eval-windows 1 --no-baseline --method rtn --threads 1)
    rm -rf "$build/whole" "$build/killed"
    "${run[@]}" --output "$build/whole" > /dev/null 2>&1
    local finished=0 killed=0
    for ((i = 0; i < count; ++i)); do
        rm -rf "$build/killed"
        while :; do
            "${run[@]}" --output "$build/killed" --resume > /dev/null 2> "$build/killed.err" &
            local pid=$!
            sleep "0.$(printf '%03d' $((RANDOM % 900)))"
            if kill -9 $pid 2> /dev/null; then
                killed=$((killed + 1))
                wait $pid 2> /dev/null || true
                # a folder that readers would take for a model holds all of it
                if [ -e "$build/killed/model.safetensors.index.json" ]; then
                    for folder in "$build"/whole/model-*; do cmp "$folder" "$build/killed/${folder##*/}"; done
                fi
            elif wait $pid; then
                break
            else
                cat "$build/killed.err"
                exit 1
            fi
            [ $((RANDOM % 3)) = 0 ] || continue
            "${run[@]}" --output "$build/killed" --resume > /dev/null 2> "$build/killed.err" || { cat "$build/killed.err"; exit 1; }
            break
        done
        diff -r "$build/whole" "$build/killed"
        finished=$((finished + 1))
    done
    echo "killed $killed times, $finished models finished afterwards, all the same bytes"
}

coverage() {
    cmake -S . -B "$build/coverage" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS="-O0 --coverage" \
        -DRESIDUA_TEST_UNITS=1 -DRESIDUA_TEST_FLOAT_ONLY=ON -DRESIDUA_BUILD_EXAMPLES=OFF > /dev/null
    local rooms=(core grids backends solver transform io threads) room
    for room in "${rooms[@]}"; do cmake --build "$build/coverage" --target "residua_${room}_tests" > /dev/null; done
    for room in "${rooms[@]}"; do "$build/coverage/tests/residua_${room}_tests" > /dev/null; done
    python3 - "$build/coverage" "$PWD/include/residua" << 'PYTHON'
import collections, json, pathlib, subprocess, sys

build, include = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2]
hits = collections.defaultdict(dict)
for data in build.rglob("*.gcda"):
    out = subprocess.run(["gcov", "--json-format", "--stdout", str(data)], cwd=data.parent, capture_output=True, text=True)
    for text in filter(None, out.stdout.splitlines()):
        for file in json.loads(text)["files"]:
            name = str((build / file["file"]).resolve())
            if name.startswith(include) and "/cuda" not in name:
                for line in file["lines"]:
                    lines = hits[name[len(include) + 1 :]]
                    lines[line["line_number"]] = max(lines.get(line["line_number"], 0), line["count"])
for name, lines in sorted(hits.items()):
    missed = sorted(n for n, count in lines.items() if count == 0)
    if missed:
        print(f"{name}: {len(missed)} of {len(lines)} lines not run: {missed[:12]}")
total = sum(map(len, hits.values()))
run = sum(count > 0 for lines in hits.values() for count in lines.values())
print(f"coverage of include/residua without cuda: {100 * run / total:.1f} % of {total} lines")
PYTHON
}

tidy() {
    clang-tidy --quiet --warnings-as-errors='*' --header-filter='include/residua/.*' tests/headers/umbrellas.cpp -- \
        -std=c++20 -Iinclude -isystem "$eigen" && echo "clang-tidy: nothing found"
}

case "${1:-}" in
    compilers | aarch64 | fuzz | kills | coverage | tidy) "$@" ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

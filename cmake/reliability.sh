#!/usr/bin/env bash
# The checks of docs/reliability.md that take too long for every change. Each prints its figures.
#
#   cmake/reliability.sh compilers          the headers as C++20 and C++23 by every compiler here, libc++ included
#   cmake/reliability.sh aarch64            tests of core, io and solver, cross-compiled, under qemu
#   cmake/reliability.sh fuzz [seconds]     the fuzzers of tests/fuzz, 600 s each
#   cmake/reliability.sh kills [count]      programs killed at random moments and resumed, 1000 times; full disks
#   cmake/reliability.sh repeat             the same bits by any threads, in any run; what other -march levels change
#   cmake/reliability.sh coverage           lines of include/residua, without cuda/, that the tests run
#   cmake/reliability.sh tidy               clang-tidy with the list of .clang-tidy
#
# On Debian 12: apt-get install clang-{15,16,19} libc++-16-dev libc++abi-16-dev g++-aarch64-linux-gnu qemu-user clang-tidy
set -euo pipefail
cd "$(dirname "$0")/.."
build=${RELIABILITY_BUILD:-build/reliability}
mkdir -p "$build"

have() { command -v "$1" > /dev/null; }
eigen=$(echo '#include <Eigen/Core>' | g++ -E -x c++ - -I/usr/local/include/eigen3 -I/usr/include/eigen3 2> /dev/null |
    sed -n 's|^# 1 "\(.*\)/Eigen/Core".*|\1|p' | head -n 1)

# Neither g++ 13 nor a newer one is in Debian 12; of libc++ one version can be installed at a time.
compilers() {
    local compiler standard library
    for compiler in g++ g++-{11,13,14,15} clang++-{14,15,16,17,18,19}; do
        have "$compiler" || continue
        for standard in c++20 c++2b; do
            for library in libstdc++ libc++; do
                local use=""
                # of std::stable_sort in libstdc++ 12, which newer releases of clang take for ours
                [[ $compiler =~ ^clang..-1[789]$ ]] && use=-Wno-deprecated-declarations
                if [ $library = libc++ ]; then
                    [[ $compiler == clang* ]] || continue
                    use=-stdlib=libc++
                    echo '#include <version>' | "$compiler" -x c++ $use -fsyntax-only - 2> /dev/null || continue
                    library+=" $(echo '#include <version>' | "$compiler" -x c++ $use -dM -E - |
                        sed -n 's/^#define _LIBCPP_VERSION \([0-9]*\)[0-9]\{4\}$/\1/p')"
                fi
                "$compiler" -std=$standard $use -Wall -Wextra -Wshadow -Wconversion -Werror -fsyntax-only -Iinclude \
                    -isystem "$eigen" tests/headers/umbrellas.cpp
                echo "$compiler $("$compiler" --version | grep -oE -m 1 '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1), -std=$standard, $library: compiles without a warning"
            done
        done
    done
}

# Without the tests that take longest to compile and to run, of what no processor changes.
aarch64() {
    local room
    mkdir -p "$build/aarch64"
    for room in core io solver; do
        local sources=() source
        while IFS= read -r source; do sources+=("$source"); done < <(find tests/$room -name '*.cpp' \
            ! -name 'two_level_test.cpp' ! -name 'injection_test.cpp' ! -name 'memory_test.cpp' | sort)
        # main.cpp first: with Catch2 2 it is the one that defines what the others use
        printf '#include "%s"\n' "$PWD/tests/main.cpp" "${sources[@]/#/$PWD/}" > "$build/aarch64/$room.cpp"
        aarch64-linux-gnu-g++ -std=c++20 -O1 -Wall -Wextra -Werror -Iinclude -Itests -Iexamples \
            -isystem "$eigen" -idirafter /usr/include -static -DRESIDUA_TEST_FLOAT_ONLY \
            -DRESIDUA_TEST_DATA_DIR="\"$PWD/tests/data\"" -DRESIDUA_EXAMPLE_DATA_DIR="\"$PWD/examples/data\"" \
            "$build/aarch64/$room.cpp" -o "$build/aarch64/$room"
        qemu-aarch64 "$build/aarch64/$room" > "$build/aarch64/$room.txt" || { cat "$build/aarch64/$room.txt"; exit 1; }
        echo "aarch64, $room: $(tail -n 2 "$build/aarch64/$room.txt" | head -n 1)"
    done
}

fuzz() {
    local seconds=${1:-600} name
    for name in formats solver safetensors; do
        clang++ -std=c++20 -g1 -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Iinclude -Iexamples \
            -isystem "$eigen" "tests/fuzz/${name}_fuzzer.cpp" -o "$build/${name}_fuzzer"
        mkdir -p "$build/found_$name"
        "$build/${name}_fuzzer" -max_total_time="$seconds" -rss_limit_mb=4096 -malloc_limit_mb=2048 -print_final_stats=1 \
            "$build/found_$name" "tests/fuzz/corpus/$name" 2>&1 | tail -n 12 |
            sed -n "s/^stat::number_of_executed_units: */$name, executions: /p; /ERROR\|SUMMARY\|Test unit/p"
    done
}

kills() { python3 cmake/kills.py "${RELIABILITY_PROGRAMS:-build/test/examples}" "$build/kills" "${1:-1000}"; }

# Levels that this processor lacks end by SIGILL, and are left out by name.
repeat() {
    local level threads first="" program
    for level in x86-64-v2 x86-64-v3 x86-64-v4; do
        program=$build/bits-$level
        g++ -std=c++20 -O2 -march=$level -fopenmp -Iinclude -Iexamples -isystem "$eigen" tests/repeat/bits.cpp -o "$program"
        if ! "$program" 1 "$program.codes" > "$program.1" 2> /dev/null; then
            echo "$level: left out, this processor does not run it"
            continue
        fi
        for threads in 1 2 3 8; do
            "$program" $threads "$program.again" > "$program.$threads"
            cmp "$program.1" "$program.$threads"
            cmp "$program.codes" "$program.again"
        done
        echo "$level: the same bits in 5 runs, by 1, 2, 3 and 8 threads"
        if [ -n "$first" ]; then
            diff "$first.1" "$program.1" | sed -n 's/^> \(.*[^ ]\)  *[0-9a-f]*$/    other bits than x86-64-v2: \1/p'
            echo "    other codes: $(cmp -l "$first.codes" "$program.codes" | wc -l) of $(stat -c %s "$program.codes")"
        fi
        first=${first:-$program}
    done
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
    compilers | aarch64 | fuzz | kills | repeat | coverage | tidy) "$@" ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

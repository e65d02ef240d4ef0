#!/bin/sh
# Builds, checks and times the CUDA backend in one go, for a machine with a GPU.
#
#   benchmarks/device.sh [build] [test] [sanitize] [check] [table] [large] [model] [whole] [profile]
#   benchmarks/device.sh cpu
#
# Without a step: build, check (test and sanitize side by side), table, large, model, whole. `cpu` needs no GPU: whole
# solves on 1, 2, 4, 8 and 16 threads, unless BENCH_SOLVE names a bench_solve after building one; less than 4 minutes on
# 16 cores. OUT/cpu_<threads>.json is what benchmarks/plot --threads draws.
#
# DEPENDENCIES names folders with Eigen, Catch2, nlohmann_json and Google Benchmark (its library in lib);
# ARCH the architecture; OUT a folder for logs.
set -u
cd "$(dirname "$0")/.."
out=${OUT:-build/device}
work=${WORK:-build/device}
arch=${ARCH:-90}
mkdir -p "$out" "$work"
flags="-std=c++20 --expt-relaxed-constexpr -arch=sm_$arch -O1 -Iinclude -Itests -Iexamples"
flags="$flags -DEIGEN_MAX_ALIGN_BYTES=64"  # see cmake/developer.cmake
libraries=
for folder in ${DEPENDENCIES:-/usr/include/eigen3}; do
    flags="$flags -isystem $folder"
    [ ! -d "$folder/lib" ] || libraries="$libraries -L$folder/lib -Xlinker -rpath=$PWD/$folder/lib"
done
libraries="$libraries -lcublas -lcusolver"
flags="$flags -DRESIDUA_LLAMA_QUANTIZE=\"$PWD/$work/llama_quantize\""
flags="$flags -DRESIDUA_TEST_DATA_DIR=\"$PWD/tests/data\" -DRESIDUA_EXAMPLE_DATA_DIR=\"$PWD/examples/data\""

benchmarks="solve accumulate refine hadamard model"

build() {
    for source in tests/main.cpp ${SOURCES:-tests/cuda/*.cu tests/programs/device_test.cpp} $(printf 'benchmarks/%s.cu ' $benchmarks) \
        examples/support/*.cpp examples/llama_quantize/*.cpp examples/llama_quantize/*.cu; do
        case $source in benchmarks/*) prefix=bench_ ;; examples/*) prefix=model_ ;; *) prefix=test_ ;; esac
        extra=
        case $source in examples/* | benchmarks/model.cu)
            extra="-DRESIDUA_EXAMPLE_CUDA -Xcompiler=-O3,-march=native,-fopenmp" ;;
        esac
        object=$work/$prefix$(basename "$source").o
        (nvcc $flags $extra -c "$source" -o "$object" >"$object.log" 2>&1 || echo "FAILED $source") &
    done
    wait
    cat "$work"/*.log | grep -E "error|FAILED" | head -20
    nvcc -arch=sm_$arch "$work"/model_*.o -o "$work/llama_quantize" $libraries -Xcompiler=-fopenmp 2>&1 | tail -3
    for name in $benchmarks; do
        parts=$work/bench_$name.cu.o
        [ $name != model ] || parts="$parts $work/model_cuda_engine.cu.o"  # it drives the program's code
        nvcc -arch=sm_$arch $parts -o "$work/$name" $libraries -lbenchmark -Xcompiler=-fopenmp 2>&1 | tail -3
    done
    catch=$(find /usr /opt -name 'libCatch2.a' 2>/dev/null | head -1)  # version 3; 2 has no library
    nvcc -arch=sm_$arch "$work"/test_*.o $catch -o "$work/tests" $libraries 2>&1 | tail -5
}

run_tests() {
    tags="golden reference invariants report trouble consume backend parity moments accumulation refine precision llama"
    for tag in $tags others; do
        filter="[$tag]"
        [ $tag != others ] || filter=$(printf '~[%s]' $tags)
        log="$out/tests_$tag.log"
        (timeout ${TEST_SECONDS:-200} "$work/tests" "$filter" >"$log" 2>&1
         echo "[$tag] exit $?: $(tail -2 "$log" | tr '\n' ' ')") &
    done
    wait
    cat "$out"/tests_*.log | grep -E -A12 "FAILED:|unexpected exception" | tail -40
}

sanitize() {
    for tool in memcheck racecheck initcheck; do
        log="$out/$tool.log"
        filter="[sanitize]"
        [ $tool != initcheck ] || filter="[sanitize]~[blas]"  # it sees nothing of what cuBLAS's bf16 products write
        (timeout ${TEST_SECONDS:-200} compute-sanitizer --tool $tool --error-exitcode 9 "$work/tests" "$filter" \
            >"$log" 2>&1
         echo "$tool exit $?: $(grep -E "ERROR SUMMARY|RACECHECK SUMMARY|assertions" "$log" | tr '\n' ' ')"
         grep -E "=========.*(Invalid|hazard|Uninit)" "$log" | sort | uniq -c | head -8) &
    done
    wait
}

check() {
    run_tests &
    sanitize
    wait
}

# Rows of Google Benchmark without what they have in common; whole as JSON in $out.
rows() {
    program=$1
    log=$out/$2
    shift 2
    "$work/$program" "$@" --benchmark_out="$log.json" --benchmark_out_format=json 2>"$log.err" |
        sed -e 's,/manual_time, ,; s,/iterations:[0-9]*,,; s,/bits:4,,' | tr -s ' -'
}

table() {
    rows accumulate accumulate
    rows solve solve --benchmark_filter='-in:53248'
    rows refine refine
    rows hadamard hadamard --benchmark_filter='n:(4096|11008|14336)' --benchmark_min_time=0.1
}

# The shipped language model, solved on the CPU and on the GPU.
model() {
    for device in cpu cuda; do
        "$work/llama_quantize" --bits 3 --eval-windows 64 --methods gptq,gptaq,rescomp,qep --refine 2 \
            --device $device 2>"$out/model_$device.err" || tail -3 "$out/model_$device.err"
    done
}

# Random weights of Llama-3-8B's shapes, through everything but files.
whole() { "$work/model"; }

# Whole solves by number of threads; sizes that take one thread minutes on 8 and more.
cpu() {
    program=${BENCH_SOLVE:-$work/bench_solve}
    if [ -z "${BENCH_SOLVE:-}" ]; then
        host=$(echo "$flags" | sed 's/--expt-relaxed-constexpr -arch=sm_[0-9]* -O1/-O3 -march=native -fopenmp -w/')
        for source in benchmarks/solve benchmarks/ceilings examples/support/solvers; do
            ${CXX:-g++} $host -c $source.cpp -o "$work/cpu_$(basename $source).o" &
        done
        wait
        ${CXX:-g++} -fopenmp "$work"/cpu_*.o -o "$program" $(echo "$libraries" | sed 's/-Xlinker /-Wl,/g; s/-lcu[a-z]*//g') \
            -lbenchmark || return
    fi
    for threads in 1 2 4 8 16; do
        [ $threads -le "$(nproc)" ] || continue
        sizes='1024/in:1024|4096/in:4096'
        [ $threads -lt 8 ] || sizes="$sizes|4096/in:14336"
        log=$out/cpu_$threads
        echo "$threads threads"
        OMP_NUM_THREADS=$threads "$program" --benchmark_filter="out:($sizes)/bits:4/clip:0" \
            --benchmark_out="$log.json" --benchmark_out_format=json 2>"$log.err" |
            sed -e 's,/manual_time, ,; s,/iterations:[0-9]*,,; s,/bits:4/clip:0,,' | tr -s ' -'
    done
}

large() { rows solve large --benchmark_filter='in:53248'; }

profile() {
    for method in ${PROFILE:-GPTQ GPTAQ}; do
        ncu --clock-control none --metrics gpu__time_duration.sum --csv "$work/solve" \
            --benchmark_filter="solve<$method>/out:4096/in:4096/bits:4/clip:0" >"$out/$method.csv" 2>"$out/$method.err"
        python3 benchmarks/kernel_times.py "$out/$method.csv"
    done
    ncu --clock-control none --set full --import-source no -k regex:sweep_kernel -s 40 -c 1 -f -o "$work/sweep" \
        "$work/solve" --benchmark_filter='solve<GPTQ>/out:4096/in:4096/bits:4/clip:0' >/dev/null 2>&1
    ncu -i "$work/sweep.ncu-rep" --page source --csv >"$out/sweep_source.csv"
    ncu -i "$work/sweep.ncu-rep" --page details >"$out/sweep_details.txt"
}

[ $# -gt 0 ] || set -- build check table large model whole
for step in "$@"; do
    started=$(date +%s)
    case $step in
        build) build ;;
        test) run_tests ;;
        sanitize) sanitize ;;
        check) check ;;
        table) table ;;
        cpu) cpu ;;
        large) large ;;
        model) model ;;
        whole) whole ;;
        profile) profile ;;
        *) echo "unknown step $step" >&2; exit 2 ;;
    esac
    echo "-- $step: $(($(date +%s) - started)) s"
done

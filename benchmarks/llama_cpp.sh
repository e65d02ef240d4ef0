#!/usr/bin/env bash
# Compares gguf_quantize with llama-quantize and an importance matrix, from the same text and at the same types of tensors, as
# stock llama-perplexity sees the files: perplexity and Kullback-Leibler divergence from the model as it is.
#
#   benchmarks/llama_cpp.sh [type...]     Q2_K Q3_K_S Q3_K_M Q4_0 Q4_K_S Q4_K_M Q5_K_M Q6_K IQ4_XS unless told otherwise
#
# BUILD: where gguf_quantize and llama_quantize are (build/release). LLAMA_CPP: the prefix that cmake/llama_cpp.sh installed to
# (build/llama_cpp). WORK: where files go (build/llama_cpp_figures); what is there is not made again. CHUNKS: windows of 512
# tokens to measure on (512). THREADS: of all programs (all cores). JOBS: files that are made and measured at a time (1). MODEL, CALIBRATION, EVAL: a GGUF file and texts in place of the shipped ones.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build/release}
tools=${LLAMA_CPP:-build/llama_cpp}/bin
work=${WORK:-build/llama_cpp_figures}
data=examples/data/tiny-llama
calibration=${CALIBRATION:-$data/calibration.txt}
eval=${EVAL:-$data/eval.txt}
chunks=${CHUNKS:-512}
threads=${THREADS:-$(nproc)}
jobs=${JOBS:-1}
types=("$@")
[ $# -gt 0 ] || types=(Q2_K Q3_K_S Q3_K_M Q4_0 Q4_K_S Q4_K_M Q5_K_M Q6_K IQ4_XS)
mkdir -p "$work"

model=${MODEL:-$work/f16.gguf}
if [ ! -e "$model" ]; then
    "$build/examples/llama_quantize" --model $data --format gguf-f16 --no-baseline --eval-windows 1 --output "$model" \
        > /dev/null 2>&1
fi
[ -e "$work/imatrix.gguf" ] || "$tools/llama-imatrix" -m "$model" -f "$calibration" -o "$work/imatrix.gguf" -c 512 -b 512 \
    -t "$threads" --no-ppl > "$work/imatrix.log" 2>&1
# perplexity <wanted line> <file> <log> [option...]: until the log has that line, for the tool's last ones are lost where it
# ends before the thread that writes them comes to it.
perplexity() {
    local try
    for try in {1..10}; do
        "$tools/llama-perplexity" -m "$2" -f "$eval" -c 512 -b 512 -t "$threads" --chunks "$chunks" "${@:4}" > "$3" 2>&1
        if grep -q "$1" "$3"; then return 0; fi
    done
    echo "llama-perplexity prints no line '$1' of $2, see $3" >&2
    return 1
}
if [ ! -e "$work/f16.log" ]; then
    perplexity "Final estimate" "$model" "$work/f16.log" --kl-divergence-base "$work/logits"
fi
base=$(sed -n 's/.*Final estimate: PPL = \([0-9.]*\).*/\1/p' "$work/f16.log")
# measure <type> <name> <command>...: makes <work>/<type>-<name>.gguf with the command and measures it, beside others.
measure() {
    local file=$work/$1-$2.gguf
    shift 2
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
    {
        [ -e "$file" ] || "$@" > "$file.log" 2>&1 || { tail -n 3 "$file.log" >&2; exit; }
        [ -e "$file.ppl" ] || perplexity "Mean  *KLD" "$file" "$file.ppl" --kl-divergence --kl-divergence-base "$work/logits"
    } &
}

# row <type> <name>: prints what was measured of the file.
row() {
    local file=$work/$1-$2.gguf ppl kld
    [ -e "$file.ppl" ] || return 0
    ppl=$(sed -n 's/^Mean PPL(Q) *: *\([0-9.]*\).*/\1/p' "$file.ppl")
    kld=$(sed -n 's/^Mean *KLD: *\([-0-9.]*\).*/\1/p' "$file.ppl")
    [ "$2" != llama-quantize ] || theirs=$ppl
    awk -v t="$1" -v s="$(stat -c %s "$file")" -v n="$2" -v p="$ppl" -v b="$base" -v o="$theirs" -v k="$kld" \
        'BEGIN { printf "| %s | %d | %s | %.4f | %.4f | %.2f | %.5f |\n", t, s, n, p, p - b, (p - b) / (o - b), k }'
}

ours=("$build/examples/llama_cpp/gguf_quantize" --model "$model" --calibration "$calibration" --allow-degraded --threads "$threads")
for type in "${types[@]}"; do
    measure "$type" llama-quantize "$tools/llama-quantize" --imatrix "$work/imatrix.gguf" "$model" \
        "$work/$type-llama-quantize.gguf" "$type"
    ours_for() { measure "$type" "$1" "${ours[@]}" --type "$type" --output "$work/$type-$1.gguf" "${@:2}"; }
    ours_for one-pass
    ours_for one-pass-best --best --one-pass
    ours_for sequential --sequential
    ours_for sequential-best --best
done
wait
echo "full precision: perplexity $base"
echo
echo "| type | bytes | by | perplexity | excess | of llama-quantize's | KL divergence |"
echo "|---|---|---|---|---|---|---|"
for type in "${types[@]}"; do
    for name in llama-quantize one-pass one-pass-best sequential sequential-best; do row "$type" "$name"; done
done

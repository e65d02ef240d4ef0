#!/usr/bin/env python3
"""What gguf_quantize costs beside llama-imatrix and llama-quantize: seconds and memory, by the number of threads.

    benchmarks/llama_cpp_cost.py --build build/release --llama-cpp build/llama_cpp --threads 1 2 4

All read the same windows of the shipped calibration text, through a Llama of random weights whose shape --hidden, --layers and
--feed-forward give. Memory is the largest resident set of each process. Needs numpy.
"""

import argparse
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import time

import numpy

DATA = pathlib.Path(__file__).resolve().parent.parent / "examples/data/tiny-llama"


def random_model(folder, hidden, layers, feed_forward):
    """A checkpoint as Hugging Face has it, with the byte vocabulary of the shipped model. Returns how many weights it has."""
    config = json.loads((DATA / "config.json").read_text())
    heads = hidden // 64
    config |= {"hidden_size": hidden, "intermediate_size": feed_forward, "num_hidden_layers": layers,
               "num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": 64}
    (folder / "config.json").write_text(json.dumps(config))
    for name in "calibration.txt", "eval.txt":
        shutil.copy(DATA / name, folder)
    shapes = {"model.embed_tokens.weight": (256, hidden), "model.norm.weight": (hidden,), "lm_head.weight": (256, hidden)}
    for i in range(layers):
        block = f"model.layers.{i}"
        for norm in "input_layernorm", "post_attention_layernorm":
            shapes[f"{block}.{norm}.weight"] = (hidden,)
        for name in "qkvo":
            shapes[f"{block}.self_attn.{name}_proj.weight"] = (hidden, hidden)
        for name in "gate", "up":
            shapes[f"{block}.mlp.{name}_proj.weight"] = (feed_forward, hidden)
        shapes[f"{block}.mlp.down_proj.weight"] = (hidden, feed_forward)
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(numpy.prod(shape))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    random = numpy.random.default_rng(1)
    with open(folder / "model.safetensors", "wb") as file:
        text = json.dumps(header).encode()
        file.write(struct.pack("<Q", len(text)) + text)
        for shape in shapes.values():
            values = numpy.ones(shape) if len(shape) == 1 else random.standard_normal(shape, numpy.float32) / shape[1] ** 0.5
            file.write(values.astype("<f2").tobytes())
    return end // 2


def measured(*words):
    """Seconds and the largest resident set in MiB."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([str(w) for w in words], stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            log.seek(0)
            sys.exit(f"{words} ended with {os.waitstatus_to_exitcode(status)}: {log.read().decode()[-2000:]}")
    return time.monotonic() - started, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default="build/release")
    parser.add_argument("--llama-cpp", type=pathlib.Path, default="build/llama_cpp")
    parser.add_argument("--type", default="Q4_K_M")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--windows", type=int, default=16, help="of 512 tokens")
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--feed-forward", type=int, default=2816)
    options = parser.parse_args()
    tools = options.llama_cpp / "bin"

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        weights = random_model(folder, options.hidden, options.layers, options.feed_forward)
        model, imatrix, text = folder / "f16.gguf", folder / "imatrix.gguf", folder / "text.txt"
        text.write_bytes((DATA / "calibration.txt").read_bytes()[: 512 * options.windows])
        measured(options.build / "examples/llama_quantize", "--model", folder, "--format", "gguf-f16", "--no-baseline",
                 "--eval-windows", 1, "--output", model)
        print(f"{weights / 1e6:.1f} million weights ({model.stat().st_size / 2**20:.0f} MiB), {options.windows} windows\n")
        print("| threads | by | seconds | microseconds a weight | MiB |")
        print("|---|---|---|---|---|")
        for threads in options.threads:
            ours = [options.build / "examples/llama_cpp/gguf_quantize", "--model", model, "--calibration", text, "--type",
                    options.type, "--allow-degraded", "--threads", threads]
            commands = {
                "`llama-imatrix`": [tools / "llama-imatrix", "-m", model, "-f", text, "-o", imatrix, "-c", 512, "-b", 512, "-t",
                                    threads, "--no-ppl"],
                "`llama-quantize`": [tools / "llama-quantize", "--imatrix", imatrix, model, folder / "theirs.gguf",
                                     options.type, threads],
                "one pass": [*ours, "--output", folder / "one.gguf", "--overwrite"],
                "`--sequential`": [*ours, "--sequential", "--output", folder / "sequential.gguf", "--overwrite"],
                "`--best`": [*ours, "--best", "--output", folder / "best.gguf", "--overwrite"],
            }
            for by, command in commands.items():
                seconds, memory = measured(*command)
                print(f"| {threads} | {by} | {seconds:.1f} | {1e6 * seconds / weights:.2f} | {memory:.0f} |", flush=True)


main()

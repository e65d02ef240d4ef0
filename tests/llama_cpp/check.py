"""check.py <test> <gguf_quantize> <llama_quantize> <folder of llama.cpp's tools> <tiny-llama>: one test of gguf_quantize."""
import json
import math
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time

import gguf_file

test, gguf_quantize, llama_quantize, tools, data = sys.argv[1:6]
calibration, evaluation = f"{data}/calibration.txt", f"{data}/eval.txt"
folder = tempfile.TemporaryDirectory()
os.chdir(folder.name)
LIGHT = ["--window", "128", "--calibration-windows", "8"]  # enough for what does not depend on how good the result is


def run(*words, code=0):
    result = subprocess.run([str(w) for w in words], capture_output=True, text=True)
    assert result.returncode == code, f"{words} ended with {result.returncode}:\n{result.stdout}\n{result.stderr}"
    return result


def quantize(output, *options, code=0, model="f16.gguf", text=calibration):
    return run(gguf_quantize, "--model", model, "--calibration", text, "--output", output, "--allow-degraded", *options,
               code=code)


def tool(name):
    path = os.path.join(tools, name)
    if not os.path.exists(path):
        print("skipped: no", path)
        sys.exit(77)
    return path


def perplexity(file, chunks):
    for _ in range(10):  # its last lines are lost where it ends before the thread that writes them comes to it
        result = run(tool("llama-perplexity"), "-m", file, "-f", evaluation, "-c", 512, "-b", 512, "-t", 1, "--chunks",
                     chunks)
        if found := re.search(r"Final estimate: PPL = ([0-9.]+)", result.stdout + result.stderr):
            return float(found[1])
    raise AssertionError(f"llama-perplexity prints no perplexity of {file}: {result.stdout} {result.stderr}")


def tiny_model():
    run(llama_quantize, "--model", data, "--format", "gguf-f16", "--no-baseline", "--eval-windows", 1, "--output",
        "f16.gguf")


def content(path):
    with open(path, "rb") as file:
        return file.read()


def nothing_left(output):
    return not os.path.exists(output) and not os.path.exists(output + ".work")


def test_perplexity():
    """llama.cpp's perplexity of the tiny model is that of our forward pass."""
    windows, chunk, half = 16, 512, 257
    with open(evaluation, "rb") as file:
        text = file.read(windows * chunk)
    with open("halves.txt", "wb") as file:
        for i in range(windows):
            file.write(text[i * chunk : i * chunk + half])

    def ours(path, window):
        table = run(llama_quantize, "--model", data, "--methods", "none", "--json", "--eval", path, "--window", window,
                    "--eval-windows", windows)
        return math.log(json.loads(table.stdout)[0]["perplexity"])

    # llama-perplexity counts the predictions of each window's second half alone: the whole but those before.
    second_half = ((chunk - 1) * ours(evaluation, chunk) - (half - 1) * ours("halves.txt", half)) / (chunk - half)
    theirs = perplexity("f16.gguf", windows)
    tolerance = 2e-3  # their weights and keys are rounded to F16, and so are the inputs of products with them
    assert abs(theirs / math.exp(second_half) - 1) < tolerance, (theirs, math.exp(second_half))


def stock(kind, importance="stock.imatrix"):
    if not os.path.exists(importance):
        run(tool("llama-imatrix"), "-m", "f16.gguf", "-f", calibration, "-o", importance, "-c", 512, "-b", 512, "-t", 1,
            "--chunks", 32, "--no-ppl")
    run(tool("llama-quantize"), "--imatrix", importance, "f16.gguf", f"stock-{kind}.gguf", kind)
    return f"stock-{kind}.gguf"


def same_but_for_solved(ours, theirs, report):
    """The same metadata, tensors and types; other bytes at most where a solve is reported."""
    a, b = gguf_file.File(ours), gguf_file.File(theirs)
    provenance = re.compile(r"quantize[.]imatrix[.]")
    assert {k: v for k, v in b.metadata.items() if not provenance.match(k)} == a.metadata
    assert a.tensors.keys() == b.tensors.keys()
    solved = {r["tensor"] for r in report}
    for name, (kind, extents, values) in a.tensors.items():
        assert (kind, extents) == b.tensors[name][:2], name
        assert name in solved or values == b.tensors[name][2], name
        assert name not in solved or gguf_file.NAMES[kind] == next(r["type"] for r in report if r["tensor"] == name)
    assert len(solved) == len([n for n in a.tensors if n.startswith("blk.") and "norm" not in n]) + 1  # and the output layer


def better_than_stock(*options):
    theirs = stock("Q3_K_M")
    quantize("ours.gguf", "--type", "Q3_K_M", "--calibration-windows", 32, "--report", "report.json", *options)
    report = json.loads(content("report.json"))
    same_but_for_solved("ours.gguf", theirs, report)
    assert all(r["objective"] < r["rounding"] for r in report), report
    full, ours, theirs = (perplexity(f, 16) for f in ("f16.gguf", "ours.gguf", theirs))
    assert full < ours < theirs, (full, ours, theirs)
    return (ours - full) / (theirs - full)


def test_one_pass():
    assert better_than_stock() < 0.8  # 0.66 of the excess on 128 windows, docs/llama_cpp.md


def test_sequential():
    assert better_than_stock("--sequential") < 0.7


def test_passes():
    """Without room for the moments of all inputs, the text goes through the model several times, and nothing else changes."""
    quantize("once.gguf", "--type", "Q4_0", *LIGHT)
    quantize("often.gguf", "--type", "Q4_0", "--memory", 1e-6, *LIGHT)
    assert content("once.gguf") == content("often.gguf")


def interrupted(*options):
    """Runs a while and is killed; whether that was before the end."""
    process = subprocess.Popen([gguf_quantize, "--model", "f16.gguf", "--calibration", calibration, "--output", "out.gguf",
                                "--type", "Q4_K_M", *LIGHT, *options], stderr=subprocess.PIPE, text=True)
    wanted = random.randrange(1, 20)
    for line in process.stderr:
        if line.startswith(f"{wanted} of "):
            process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode in (0, -signal.SIGKILL), process.returncode
    return process.returncode != 0


def goes_on(*options):
    quantize("whole.gguf", "--type", "Q4_K_M", *LIGHT, *options)
    assert interrupted(*options) and not os.path.exists("out.gguf")
    begun = content("out.gguf.work/journal.jsonl").count(b"\n")
    refused = quantize("out.gguf", "--type", "Q4_K_M", *LIGHT, *options, code=2)
    assert "is there from a run that ended early" in refused.stderr, refused.stderr
    other = quantize("out.gguf", "--type", "Q4_K_M", *LIGHT, *options, "--damping", "0.02", "--resume", code=2)
    assert "another choices" in other.stderr, other.stderr
    result = quantize("out.gguf", "--type", "Q4_K_M", *LIGHT, *options, "--resume")
    assert begun > 0 and "\n1 of 25 inputs done" not in result.stderr, result.stderr
    assert content("out.gguf") == content("whole.gguf")
    assert not os.path.exists("out.gguf.work")


def test_resumed():
    goes_on()


def test_resumed_sequential():
    goes_on("--sequential")


def test_like():
    """Types tensor by tensor of another file, and of single tensors before those."""
    quantize("model.gguf", "--type", "Q2_K", "--method", "rtn", *LIGHT)
    quantize("like.gguf", "--like", "model.gguf", "--tensor-type", r"blk\.0\.ffn_up=q6_k", *LIGHT)
    given, made = gguf_file.File("model.gguf").tensors, gguf_file.File("like.gguf").tensors
    assert {n: t[0] for n, t in made.items()} == {n: t[0] for n, t in given.items()} | {"blk.0.ffn_up.weight": 14}
    quantize("other.gguf", "--like", calibration, *LIGHT, code=2)
    assert nothing_left("other.gguf")


def test_requantized():
    quantize("q8.gguf", "--type", "Q8_0", *LIGHT)
    refused = quantize("again.gguf", "--type", "Q4_0", *LIGHT, model="q8.gguf", code=2)
    assert "--allow-requantize" in refused.stderr and nothing_left("again.gguf"), refused.stderr
    quantize("again.gguf", "--type", "Q4_0", "--allow-requantize", *LIGHT, model="q8.gguf")
    assert gguf_file.File("again.gguf").tensors["blk.0.ffn_up.weight"][0] == 2


def test_refusals():
    with open("short.txt", "w") as file:
        file.write("not a window of text")
    with open("no.gguf", "w") as file:
        file.write("not a model")
    with open("cut.gguf", "wb") as file:
        file.write(content("f16.gguf")[:-4096])
    unknown = content("f16.gguf").replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lames")
    with open("unknown.gguf", "wb") as file:
        file.write(unknown)
    def full_disk():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    full = subprocess.run([gguf_quantize, "--model", "f16.gguf", "--calibration", calibration, "--type", "Q4_0",
                           "--output", "full.gguf", *LIGHT], preexec_fn=full_disk, capture_output=True, text=True)
    assert full.returncode == 2 and "cannot write the draft" in full.stderr and nothing_left("full.gguf"), full.stderr
    for words, options in [
        ("--type is Q5, expected one of Q2_K", {"type": "Q5"}),
        ("'short.txt' has tokens: 20, expected at least 512, a window", {"text": "short.txt"}),
        ("cannot open 'missing.txt'", {"text": "missing.txt"}),
        ("cannot open 'missing.gguf'", {"model": "missing.gguf"}),
        ("does not read this as a GGUF file", {"model": "no.gguf"}),
        ("the file ends before", {"model": "cut.gguf"}),
        ("unknown model architecture: 'lames'", {"model": "unknown.gguf"}),
        ("--one-pass: --method is qep", {"more": ["--method", "qep", "--one-pass"]}),
        ("--bits is given", {"more": ["--bits", "4"]}),
        ("--tensor-type is q4_0, expected a name", {"more": ["--tensor-type", "q4_0"]}),
        ("--tensor-type: the type is q4_7", {"more": ["--tensor-type", "output=q4_7"]}),
        ("is missing, expected a folder to write in", {"output": "nowhere/out.gguf"}),
        ("exists, expected --overwrite", {"output": "f16.gguf"}),
    ]:
        output = options.get("output", "out.gguf")
        started = time.monotonic()
        result = quantize(output, "--type", options.get("type", "Q4_0"), *options.get("more", []),
                          model=options.get("model", "f16.gguf"), text=options.get("text", calibration), code=2)
        assert words in result.stderr, (words, result.stderr)
        assert output == "f16.gguf" or nothing_left(output), words
        assert time.monotonic() - started < 20, words  # before the work begins


def random_model(path, arch, experts=0, used=0):
    """Of two small blocks, with the byte vocabulary. Of experts, the first two are the same."""
    random.seed(1)
    hidden, width, blocks, heads, size = 64, 96, 2, 2, 32
    values = lambda n: [random.gauss(0, 0.1) for _ in range(n)]
    tensors = {"token_embd.weight": ((hidden, 256), values(hidden * 256)), "output_norm.weight": ((hidden,), [1.0] * hidden)}
    if experts:
        tensors["output.weight"] = (hidden, 256), values(hidden * 256)  # the others use the embedding once more
    norms = [("attn_norm", hidden), ("ffn_norm", hidden), ("attn_q_norm", size), ("attn_k_norm", size)]
    if arch == "gemma3":
        norms += [("post_attention_norm", hidden), ("post_ffw_norm", hidden)]
    matrices = [("attn_q", hidden, heads * size), ("attn_k", hidden, heads * size), ("attn_v", hidden, heads * size),
                ("attn_output", heads * size, hidden)]
    feed_forward = [("ffn_gate", hidden, width), ("ffn_up", hidden, width), ("ffn_down", width, hidden)]
    for b in range(blocks):
        for name, extent in norms:
            tensors[f"blk.{b}.{name}.weight"] = (extent,), [1.0] * extent
        for name, cols, rows in matrices + (feed_forward if not experts else [("ffn_gate_inp", hidden, experts)]):
            tensors[f"blk.{b}.{name}.weight"] = (cols, rows), values(cols * rows)
        for name, cols, rows in feed_forward if experts else []:
            twin = values(cols * rows)
            tensors[f"blk.{b}.{name}_exps.weight"] = (cols, rows, experts), twin + twin + values((experts - 2) * cols * rows)
    metadata = {"general.architecture": arch}
    metadata |= {k: v for k, v in gguf_file.File("f16.gguf").metadata.items() if k.startswith("tokenizer.ggml.")}
    metadata["tokenizer.ggml.merges"] = ["a b"]  # an empty list has no type
    metadata |= {f"{arch}.{k}": v for k, v in {
        "vocab_size": 256, "context_length": 512, "embedding_length": hidden, "block_count": blocks,
        "feed_forward_length": width, "attention.head_count": heads, "attention.head_count_kv": heads,
        "attention.key_length": size, "attention.value_length": size, "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 10000.0}.items()}
    if experts:
        metadata |= {f"{arch}.{k}": v for k, v in {"expert_feed_forward_length": width, "expert_count": experts,
                                                   "expert_used_count": used}.items()}
    gguf_file.write(path, metadata, tensors)


def test_architectures():
    """Other architectures go through, both ways, and a stock llama.cpp loads the result."""
    for arch in ("gemma3", "qwen3"):
        random_model(f"{arch}.gguf", arch)
        for way in (["--one-pass"], ["--sequential"], ["--sequential", "--method", "gptq"]):
            output = f"{arch}{''.join(way)}.gguf"
            quantize(output, "--type", "Q4_K_M", *way, "--report", output + ".json", *LIGHT, model=f"{arch}.gguf")
            report = json.loads(content(output + ".json"))
            solved = {r["tensor"] for r in report}
            given = gguf_file.File(f"{arch}.gguf").tensors
            assert solved == {n for n in given if n.startswith("blk.") and "norm" not in n}, solved
            assert {r["type"] for r in report} == {"q5_0", "q8_0"}, report  # of rows that 256 does not divide
            perplexity(output, 1)


def test_experts():
    """Every expert has the moments of the tokens that chose it."""
    tokens = 8 * 128
    for used in (2, 4):
        random_model(f"moe-{used}.gguf", "qwen3moe", experts=4, used=used)
        for way in ("--one-pass", "--sequential"):
            output = f"moe-{used}{way}.gguf"
            quantize(output, "--type", "Q4_0", way, "--report", output + ".json", "--allow-unseen-experts", *LIGHT,
                     model=f"moe-{used}.gguf")
            report = json.loads(content(output + ".json"))
            for block in range(2):
                for name in ("gate", "up", "down"):
                    tensor = f"blk.{block}.ffn_{name}_exps.weight"
                    read = {r["matrix"]: r["tokens"] for r in report if r["tensor"] == tensor}
                    assert sorted(read) == [0, 1, 2, 3], read
                    assert sum(read.values()) == used * tokens, read
                    if used == 4:  # twins that read the same become the same
                        values = gguf_file.File(output).tensors[tensor][2]
                        size = len(values) // 4
                        assert values[:size] == values[size : 2 * size] != values[2 * size : 3 * size], tensor
    # Of four experts one token reaches two at most.
    with open("moe.txt", "w") as file:
        file.write("a" * 16)
    refused = quantize("unseen.gguf", "--type", "Q4_0", "--window", "16", model="moe-2.gguf", text="moe.txt", code=2)
    assert "read no token of --calibration" in refused.stderr, refused.stderr


tiny_model()
globals()[f"test_{test}"]()

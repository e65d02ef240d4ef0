"""engines.py LLAMA_QUANTIZE LLAMA_LOGITS MODEL FOLDER: writes whole checkpoints of a byte-level model in every format, loads each
with the engines that read it, on the CPU, and compares logits and perplexity there with residua's own forward pass on
the dequantized weights.

Packages come into FOLDER/venv by pip, or from the interpreter that RESIDUA_ENGINES_PYTHON names. What cannot be had is
skipped by name. Exit status 77: nothing could be checked.
"""

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

SKIP = 77
PACKAGES = ["numpy", "torch", "transformers", "accelerate", "compressed-tensors", "bitsandbytes", "gptqmodel", "llama-cpp-python"]
MODULES = {"compressed-tensors": "compressed_tensors", "llama-cpp-python": "llama_cpp"}

WINDOW = 256
WINDOWS = 6
# Of the largest logit: engines dequantize to half precision, and some compute in it (a rounding is 5e-4).
LOGITS = 5e-3
PERPLEXITY = 1e-3  # relative


class Missing(Exception):
    pass


def need(*packages):
    for package in packages:
        try:
            importlib.import_module(MODULES.get(package, package))
        except ImportError as error:
            raise Missing(f"{package} ({error})") from error


def logits_of(model, tokens):
    import torch

    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].float().numpy()


def by_transformers(path, **arguments):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **arguments).eval()
    return lambda tokens: logits_of(model, tokens)


def transformers(path):
    need("torch", "transformers")
    return by_transformers(path)


def compressed_tensors(path):
    """Decompressed when it is loaded: without, transformers refuses or misreads some of these (see docs/formats.md)."""
    need("torch", "transformers", "compressed-tensors")
    from transformers import CompressedTensorsConfig

    return by_transformers(path, quantization_config=CompressedTensorsConfig(dequantize=True))


def bitsandbytes(path):
    need("torch", "transformers", "accelerate", "bitsandbytes")
    import bitsandbytes
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, device_map="cpu").eval()
    layers = [module for module in model.modules() if isinstance(module, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 42, f"{len(layers)} layers of bitsandbytes, expected 42"
    for layer in layers:
        layer.compute_dtype = torch.float32
    for parameter in model.parameters():  # transformers leaves them in bfloat16, whatever dtype is
        if parameter.dtype == torch.bfloat16:
            parameter.data = parameter.data.float()
    return lambda tokens: logits_of(model, tokens)


def gptqmodel(path):
    need("torch", "transformers", "gptqmodel")
    import torch
    from gptqmodel import BACKEND, GPTQModel

    model = GPTQModel.load(str(path), device="cpu", backend=BACKEND.GPTQ_TORCH, dtype=torch.float16)
    return lambda tokens: logits_of(model.model, tokens)


def llama_cpp(path):
    need("numpy", "llama-cpp-python")
    import numpy
    from llama_cpp import Llama

    model = Llama(str(path), n_ctx=WINDOW, logits_all=True, verbose=False, n_threads=2)

    def run(tokens):
        model.reset()
        model.eval(tokens)
        return numpy.array(model.scores[: len(tokens)])

    return run


def refused(path):
    """An engine that knows nothing of the online transforms must not run this."""
    need("torch", "transformers")
    try:
        by_transformers(path)
    except (ValueError, KeyError, OSError) as error:
        assert "residua_online_hadamard" in str(error), error
        return None
    raise AssertionError("transformers loaded a checkpoint that needs online Hadamard transforms")


GPTQ = "--method gptq --calibration-windows 8 --group-size 64"
CASES = [
    ("gptq-v1", f"{GPTQ} --format gptq-v1 --symmetric full", gptqmodel),
    ("gptq-v2", f"{GPTQ} --format gptq-v2 --symmetric full", gptqmodel),
    ("gptq-v2-asymmetric", f"{GPTQ} --format gptq-v2 --symmetric none --order activation", gptqmodel),
    ("gptq-v2-8-bits", f"{GPTQ} --format gptq-v2 --symmetric full --bits 8", gptqmodel),
    ("gptq-v2-rotated", f"{GPTQ} --format gptq-v2 --symmetric full --rotate hadamard", gptqmodel),
    ("online-hadamard", f"{GPTQ} --format gptq-v2 --symmetric full --rotate hadamard --online-hadamard", refused),
    ("compressed-tensors", f"{GPTQ} --format compressed-tensors --symmetric full", compressed_tensors),
    ("compressed-tensors-asymmetric", f"{GPTQ} --format compressed-tensors --symmetric none", compressed_tensors),
    ("compressed-tensors-8-bits", f"{GPTQ} --format compressed-tensors --symmetric full --bits 8", compressed_tensors),
    ("nvfp4", "--method gptq --calibration-windows 8 --format nvfp4", compressed_tensors),
    ("mxfp4", "--method gptq --calibration-windows 8 --format mxfp4", compressed_tensors),
    ("nf4", "--method gptq --calibration-windows 8 --format nf4", bitsandbytes),
    ("gguf-q4_0", "--method gptq --calibration-windows 8 --format gguf-q4_0", llama_cpp),
    ("gguf-q4_k", "--method gptq --calibration-windows 8 --format gguf-q4_k", llama_cpp),
    ("gguf-mxfp4", "--method gptq --calibration-windows 8 --format gguf-mxfp4", llama_cpp),
    ("gguf-f16", "--format gguf-f16", llama_cpp),
]


def perplexity(run, windows):
    import numpy

    loss = count = 0
    for window in windows:
        rows = run(window)[:-1].astype(numpy.float64)
        top = rows.max(axis=1, keepdims=True)
        all_of = numpy.log(numpy.exp(rows - top).sum(axis=1)) + top[:, 0]
        loss += (all_of - rows[numpy.arange(len(rows)), window[1:]]).sum()
        count += len(rows)
    return float(numpy.exp(loss / count))


def own_logits(program, path, tokens, folder):
    """By residua, of the checkpoint that it wrote."""
    import numpy

    words = numpy.array(tokens, numpy.int32)
    header = json.dumps({"tokens": {"dtype": "I32", "shape": [len(tokens)], "data_offsets": [0, words.nbytes]}}).encode()
    source, output = folder / "tokens.safetensors", folder / "logits.safetensors"
    source.write_bytes(len(header).to_bytes(8, "little") + header + words.tobytes())
    subprocess.run([program, path, source, output], check=True)
    data = output.read_bytes()
    size = int.from_bytes(data[:8], "little")
    shape = json.loads(data[8:8 + size])["logits"]["shape"]
    return numpy.frombuffer(data[8 + size:], numpy.float32).reshape(shape)


def check(case, quantize, logits, model, folder):
    name, arguments, engine = case
    suffix = ".gguf" if engine is llama_cpp else ""
    path = folder / (name + suffix)
    command = [quantize, "--model", model, "--output", path, "--overwrite", "--no-baseline", "--json",
               "--window", WINDOW, "--eval-windows", WINDOWS, *arguments.split()]
    made = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
    wanted = json.loads(made.stdout)[0]["perplexity"]
    run = engine(path)
    if run is None:
        return "refused, as it should be"
    text = (Path(model) / "eval.txt").read_bytes()
    windows = [list(text[i * WINDOW:(i + 1) * WINDOW]) for i in range(WINDOWS)]
    found = perplexity(run, windows)
    said = f"perplexity {found:.5f}, here {wanted:.5f}"
    assert abs(found / wanted - 1) < PERPLEXITY, said
    if suffix == "":  # residua's own reader takes checkpoints only
        own = own_logits(logits, path, windows[0], folder)
        difference = abs(run(windows[0]) - own).max() / abs(own).max()
        said += f", logits differ by {difference:.1e} of the largest"
        assert difference < LOGITS, said
    return said


def run_all(quantize, logits, model, folder):
    warnings.filterwarnings("ignore")
    for package in PACKAGES:
        try:
            print(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            print(package, "is missing")
    checked = failed = 0
    chosen = os.environ.get("RESIDUA_ENGINES_CASES")  # separated by commas
    for case in CASES:
        if chosen and case[0] not in chosen.split(","):
            continue
        try:
            print(f"ok   {case[0]}: {check(case, quantize, logits, model, folder)}", flush=True)
            checked += 1
        except Missing as error:
            print(f"skip {case[0]}: no {error}", flush=True)
        except Exception as error:  # whatever an engine throws is a failure of this case alone
            print(f"FAIL {case[0]}: {type(error).__name__}: {error}", flush=True)
            if isinstance(error, subprocess.CalledProcessError):
                print(error.stderr)
            checked += 1
            failed += 1
    print(f"{checked - failed} of {checked} checkpoints agree")
    return 1 if failed else 0 if checked else SKIP


def venv_python(folder):
    """The interpreter of a virtual environment with what packages can be had."""
    python = folder / "venv" / "bin" / "python"
    if python.exists():
        return python
    if subprocess.run([sys.executable, "-m", "venv", folder / "venv"]).returncode != 0:
        print("skipped: no module venv")
        sys.exit(SKIP)
    for package in PACKAGES:
        extra = ["--extra-index-url", "https://download.pytorch.org/whl/cpu"] if package == "torch" else []
        build = ["--no-build-isolation"] if package == "gptqmodel" else []
        subprocess.run([python, "-m", "pip", "install", "--quiet", *extra, *build, package])
    return python


def main():
    quantize, logits, model, folder = sys.argv[1:]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if "RESIDUA_ENGINES_INSIDE" in os.environ:
        return run_all(quantize, logits, model, folder)
    python = os.environ.get("RESIDUA_ENGINES_PYTHON") or venv_python(folder)
    environment = {**os.environ, "RESIDUA_ENGINES_INSIDE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return subprocess.run([python, __file__, *sys.argv[1:]], env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""AutoRound (arXiv 2309.05516) on the shipped language model: perplexity and seconds, the peer of `benchmarks/perplexity quality`.

    pip install auto-round==0.16.1 transformers torch
    benchmarks/autoround.py --bits 3 --symmetric
    benchmarks/autoround.py --bits 2 --half first      # calibrated on the first half of the text, or the second

It learns the roundings by signed gradient descent (200 iterations, batches of 8) on the windows of `calibration.txt`,
groups of 128 columns. Perplexity as llama_quantize has it: each window of `eval.txt` on its own, 511 predictions a window.
"""

import argparse
import json
import math
import pathlib
import time

import torch
from auto_round import AutoRound
from transformers import AutoModelForCausalLM

MODEL = pathlib.Path(__file__).resolve().parent.parent / "examples/data/tiny-llama"
WINDOW = 512


def windows_of(name):
    text = torch.frombuffer(bytearray((MODEL / name).read_bytes()), dtype=torch.uint8).long()
    return text[: len(text) // WINDOW * WINDOW].view(-1, WINDOW)


class Bytes:
    """All that AutoRound wants of a tokenizer when the calibration tokens are given."""

    model_max_length = WINDOW
    pad_token_id = eos_token_id = bos_token_id = None


@torch.no_grad()
def perplexity(model, windows):
    total, count = 0.0, 0
    for batch in windows.split(8):
        logits = model(batch).logits[:, :-1].double()
        total += torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum").item()
        count += batch[:, 1:].numel()
    return math.exp(total / count)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--symmetric", action="store_true")
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--half", choices=["first", "second"], help="of the calibration text; all of it without")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    calibration = windows_of("calibration.txt")
    if options.half:
        middle = len(calibration) // 2
        calibration = calibration[:middle] if options.half == "first" else calibration[middle:]
    loader = torch.utils.data.DataLoader([{"input_ids": window} for window in calibration], batch_size=8)

    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    started = time.monotonic()
    quantizer = AutoRound(model, Bytes(), bits=options.bits, group_size=128, sym=options.symmetric,
                          iters=options.iterations, batch_size=8, nsamples=len(calibration), seqlen=WINDOW,
                          dataset=loader, device_map="cpu", enable_torch_compile=False)
    model, _ = quantizer.quantize()
    seconds = time.monotonic() - started
    print(json.dumps({"bits": options.bits, "symmetric": options.symmetric, "half": options.half,
                      "perplexity": perplexity(model.float(), windows_of("eval.txt")), "seconds": seconds,
                      "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()

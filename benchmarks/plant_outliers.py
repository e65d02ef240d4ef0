#!/usr/bin/env python3
"""plant_outliers.py OUTPUT [--model FOLDER] [--factor 64]: a copy of the shipped language model with four outlier channels,
as large models have them, in each block: norm weights times the factor, and the columns that read them divided by it, so
that the model computes what it did. The factor is a power of two, which is exact in bfloat16.
"""

import argparse
import array
import json
import pathlib
import shutil
import struct

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHANNELS = (3, 77, 140, 201)
READERS = {"input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
           "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj")}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "examples/data/tiny-llama")
    parser.add_argument("--factor", type=int, default=64)
    options = parser.parse_args()
    if options.factor < 1 or options.factor & (options.factor - 1):
        parser.error(f"--factor is {options.factor}, expected a power of two")
    exponent = options.factor.bit_length() - 1

    data = bytearray((options.model / "model.safetensors").read_bytes())
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])

    def scale(name, by):
        """Multiplies the channels of a tensor, the last dimension, by 2^by."""
        tensor = header[name]
        if tensor["dtype"] != "BF16":
            parser.error(f"{name} is {tensor['dtype']}, expected BF16")
        begin, end = (8 + size + offset for offset in tensor["data_offsets"])
        values = array.array("H", bytes(data[begin:end]))
        width = tensor["shape"][-1]
        for row in range(0, len(values), width):
            for channel in CHANNELS:
                value = values[row + channel]
                if (value >> 7) & 255:  # neither zero nor subnormal
                    values[row + channel] = value + (by << 7)
        data[begin:end] = values.tobytes()

    for name in list(header):
        if name.startswith("model.layers.") and name.endswith("layernorm.weight"):
            block, norm = name.removesuffix(".weight").rsplit(".", 1)
            scale(name, exponent)
            for reader in READERS[norm]:
                scale(f"{block}.{reader}.weight", -exponent)

    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "model.safetensors").write_bytes(data)
    for name in "config.json", "calibration.txt", "eval.txt":
        shutil.copyfile(options.model / name, options.output / name)


if __name__ == "__main__":
    main()

"""check.py FOLDER...: reads what write_samples, or quantize_layer and inspect, wrote there by each format's public definition, sharing no code with
residua, and compares with residua's dequantized weights, bit by bit.

GPTQ and NF4 are unpacked with numpy alone. GGUF files are read and dequantized by the package gguf, compressed-tensors
by the package of that name (which needs torch); without it, by numpy. ONNX files are unpacked with numpy, and run by
the package onnxruntime where it is there. Exit status 77: numpy, safetensors or gguf are
missing, nothing or not everything was checked.
"""

import json
import struct
import sys
from pathlib import Path

SKIP = 77
missing = []
try:
    import numpy as np
except ImportError:
    print("skipped: no numpy")
    sys.exit(SKIP)
try:
    from safetensors import safe_open
except ImportError:
    safe_open = None
    missing.append("safetensors")
try:
    import gguf
except ImportError:
    gguf = None
    missing.append("gguf")
try:
    import torch
    import compressed_tensors
except ImportError:
    compressed_tensors = None
    print("note: no torch or no compressed_tensors, these formats are unpacked with numpy instead")


try:
    import onnxruntime
except ImportError:
    onnxruntime = None
    print("note: no onnxruntime, ONNX files are read with numpy alone")


def stored_tensors(path):
    """Tensors as (dtype name, array of bytes or numbers), and metadata, parsed by hand."""
    dtypes = {"F32": np.float32, "F16": np.float16, "I32": np.int32, "I64": np.int64, "U8": np.uint8,
              "F8_E4M3": np.uint8}
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        array = np.frombuffer(data[8 + size + begin:8 + size + end], dtypes[entry["dtype"]])
        tensors[name] = array.reshape(entry["shape"])
    return tensors, metadata


def tensors_of(path):
    """By the package safetensors where it is there and knows the types."""
    tensors, metadata = stored_tensors(path)
    if safe_open is not None:
        with safe_open(path, framework="numpy") as file:
            assert (file.metadata() or {}) == metadata
            assert sorted(file.keys()) == sorted(tensors)
            for name, array in tensors.items():
                if "nvfp4" not in path.name:
                    assert np.array_equal(file.get_tensor(name), array), name
    return tensors, metadata


def stream(words, bits, count):
    """`count` values from each row of 32-bit words, least significant bits first."""
    rows = np.ascontiguousarray(words).view(np.uint8).reshape(words.shape[0], -1)
    each = np.unpackbits(rows, axis=1, bitorder="little")[:, :count * bits].reshape(words.shape[0], count, bits)
    return (each.astype(np.int32) << np.arange(bits)).sum(axis=2)


def gptq(path):
    tensors, metadata = tensors_of(path)
    config = json.loads(metadata["quantization_config"])
    assert config["quant_method"] == "gptq" and config["pack_dtype"] == "int32"
    bits = config["bits"]
    scales = tensors["layer.scales"].astype(np.float32)
    group = tensors["layer.g_idx"]
    inputs, outputs = group.size, scales.shape[1]
    codes = stream(tensors["layer.qweight"].T, bits, inputs).T  # (in, out)
    zeros = stream(tensors["layer.qzeros"], bits, outputs)
    if config["checkpoint_format"] == "gptq":
        zeros = (zeros + 1) & ((1 << bits) - 1)  # as GPTQModel loads version 1
    assert config["sym"] == bool((zeros == 1 << (bits - 1)).all())
    size = config["group_size"] if config["group_size"] > 0 else inputs
    assert config["desc_act"] == bool((group != np.arange(inputs) // size).any())
    return (scales[group] * (codes - zeros[group]).astype(np.float32)).T


def gguf_file(path):
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if "norm.weight" in tensors:
        assert tensors["norm.weight"].data.tolist() == [1, 1, 1]
    tensor = tensors["layer.weight"]
    assert tensor.tensor_type.name == path.stem.split("_", 1)[1]
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
E2M1 = np.concatenate([E2M1, -E2M1])


def e4m3(codes):
    exponent, mantissa = (codes >> 3 & 15).astype(np.int32), (codes & 7).astype(np.float32)
    return np.where(exponent == 0, mantissa * np.float32(2) ** -9,
                    np.ldexp(1 + mantissa / 8, exponent - 7)).astype(np.float32)


def by_numpy(tensors, config):
    """compressed-tensors' formats by their description."""
    scale = tensors["layer.weight_scale"]
    packed = tensors["layer.weight_packed"]
    weights = config["config_groups"]["group_0"]["weights"]
    if config["format"] == "pack-quantized":
        bits = weights["num_bits"]
        rows, cols = tensors["layer.weight_shape"]
        signed = stream(packed, bits, cols) - (1 << (bits - 1))
        zero = np.zeros(scale.shape, np.int32)
        if not weights["symmetric"]:
            zero = stream(tensors["layer.weight_zero_point"].T, bits, rows).T - (1 << (bits - 1))
        repeat = cols // scale.shape[1]
        return (signed - zero.repeat(repeat, 1)).astype(np.float32) * scale.astype(np.float32).repeat(repeat, 1)
    values = E2M1[np.stack([packed & 15, packed >> 4], axis=2).reshape(packed.shape[0], -1)]
    if config["format"] == "nvfp4-pack-quantized":
        scale = e4m3(scale) / tensors["layer.weight_global_scale"]
    else:
        scale = np.ldexp(np.float32(1), scale.astype(np.int32) - 127)
    return values * scale.repeat(weights["group_size"], 1)


def by_package(tensors, config):
    """compressed-tensors' formats by their own decompressors."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    parsed = QuantizationConfig.model_validate(config)
    compressor = BaseCompressor.get_value_from_registry(parsed.format)
    state = {name.removeprefix("layer."): torch.from_numpy(array.copy()) for name, array in tensors.items()}
    if parsed.format == "pack-quantized":
        state["weight_scale"] = state["weight_scale"].float()  # else the result is rounded to float16
        state["weight_shape"] = torch.Size(state["weight_shape"].tolist())
    if parsed.format == "nvfp4-pack-quantized":
        state["weight_scale"] = state["weight_scale"].view(torch.float8_e4m3fn)
    return compressor.decompress(state, parsed.config_groups["group_0"])["weight"].float().numpy()


def compressed(path):
    tensors, metadata = tensors_of(path)
    config = json.loads(metadata["quantization_config"])
    values = by_numpy(tensors, config)
    if compressed_tensors is not None:
        assert np.array_equal(by_package(tensors, config), values), "the package disagrees with its description"
    return values


def nf4(path):
    tensors, _ = tensors_of(path)
    state = json.loads(tensors["layer.weight.quant_state.bitsandbytes__nf4"].tobytes())
    assert state["quant_type"] == "nf4"
    pairs = tensors["layer.weight"].reshape(-1)
    codes = np.stack([pairs >> 4, pairs & 15], axis=1).reshape(-1, state["blocksize"])
    values = tensors["layer.weight.quant_map"][codes] * tensors["layer.weight.absmax"][:, None]
    return values.reshape(state["shape"])


def fields(message):
    """Of a protocol buffer: by number, integers and bytes."""
    found, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        assert key & 7 in (0, 2), "a wire type that ONNX files have none of"
        value = varint()
        if key & 7 == 2:
            value, at = message[at:at + value], at + value
        found.setdefault(key >> 3, []).append(value)
    return found


def onnx(path):
    """By the definition of MatMulNBits; where ONNX Runtime is there, it must say the same."""
    (graph,) = map(fields, fields(path.read_bytes())[7])
    (node,) = map(fields, graph[1])
    assert node[4] == [b"MatMulNBits"] and node[7] == [b"com.microsoft"]
    attributes = {f[1][0].decode(): f[3][0] for f in map(fields, node[5])}
    bits, outputs, inputs = attributes["bits"], attributes["N"], attributes["K"]
    tensors = {}
    for tensor in map(fields, graph[5]):
        dtype = {1: np.float32, 2: np.uint8}[tensor[2][0]]
        tensors[tensor[8][0]] = np.frombuffer(tensor[9][0], dtype).reshape(tensor[1])
    inputs_of_node = [tensors[name] for name in node[1][1:]]

    def unpacked(bytes_of_rows, count):
        parts = [bytes_of_rows >> shift & ((1 << bits) - 1) for shift in range(0, 8, bits)]
        return np.stack(parts, axis=2).reshape(outputs, -1)[:, :count].astype(np.float32)

    size = attributes["block_size"]
    scales = inputs_of_node[1]
    codes = unpacked(inputs_of_node[0].reshape(outputs, -1), inputs)
    zeros = np.full(scales.shape, 1 << (bits - 1), np.float32)
    if len(inputs_of_node) > 2:
        zeros = unpacked(inputs_of_node[2], scales.shape[1])
    values = (codes - zeros.repeat(size, 1)) * scales.repeat(size, 1)
    if onnxruntime is not None:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (y,) = session.run(None, {"x": np.eye(inputs, dtype=np.float32)})
        # It may multiply codes and zeros apart: a rounding of the product of the largest code.
        rounding = scales.max() * (1 << bits) * np.float32(2) ** -23
        assert abs(y.T - values).max() <= rounding, f"ONNX Runtime differs by {abs(y.T - values).max()}"
    return values


def reader_of(path):
    if path.suffix == ".onnx":
        return onnx
    if path.suffix == ".gguf":
        return gguf_file if gguf is not None else None
    if path.name.startswith("gptq_"):
        return gptq
    return nf4 if path.stem == "nf4" else compressed


def main():
    checked = failed = 0
    paths = [path for folder in sys.argv[1:] for path in sorted(Path(folder).glob("*.expected.safetensors"))]
    for expected_path in paths:
        folder, name = expected_path.parent, expected_path.name.removesuffix(".expected.safetensors")
        path = next(path for suffix in (".gguf", ".onnx", ".safetensors")
                    if (path := folder / (name + suffix)).exists())
        reader = reader_of(path)
        if reader is None:
            continue
        (expected,) = stored_tensors(expected_path)[0].values()
        values = np.asarray(reader(path))
        same = values.dtype == np.float32 and values.shape == expected.shape and (values == expected).all()
        checked += 1
        failed += not same
        print(f"{'ok  ' if same else 'FAIL'} {name}")
    print(f"{checked - failed} of {checked} samples agree")
    if missing:
        print("not everything was checked, for there is no package", ", ".join(missing))
    if failed or checked == 0:
        return 1
    return SKIP if missing else 0


if __name__ == "__main__":
    sys.exit(main())

"""GGUF files as the format's description has them, by the standard library alone: another witness than the programs' own
readers and writers."""
import struct

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
          11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136), 30: (1, 2)}
NAMES = {0: "f32", 1: "f16", 2: "q4_0", 8: "q8_0", 10: "q2_K", 11: "q3_K", 12: "q4_K", 13: "q5_K", 14: "q6_K"}
ALIGNMENT = 32


def padded(size):
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


class File:
    """metadata: {key: value}; tensors: {name: (type, extents, bytes)}, extents with the contiguous one first."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.bytes, self.at = file.read(), 0
        magic, version, tensors, entries = self.take("<4sIQQ")
        assert magic == b"GGUF" and version == 3, (magic, version)
        self.metadata = {}
        for _ in range(entries):
            key = self.text()
            self.metadata[key] = self.value(*self.take("<I"))
        infos = []
        for _ in range(tensors):
            name = self.text()
            (rank,) = self.take("<I")
            infos.append((name, self.take(f"<{rank}Q"), *self.take("<IQ")))
        data = padded(self.at)
        self.tensors = {}
        for name, extents, kind, offset in infos:
            elements, size = BLOCKS[kind]
            count = 1
            for extent in extents:
                count *= extent
            begin = data + offset
            self.tensors[name] = (kind, extents, self.bytes[begin : begin + count // elements * size])

    def take(self, layout):
        values = struct.unpack_from(layout, self.bytes, self.at)
        self.at += struct.calcsize(layout)
        return values

    def text(self):
        (size,) = self.take("<Q")
        self.at += size
        return self.bytes[self.at - size : self.at].decode()

    def value(self, kind):
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            of, count = self.take("<IQ")
            return [self.value(of) for _ in range(count)]
        return self.take("<" + SCALARS[kind])[0]


def write(path, metadata, tensors):
    """metadata: {key: value}, of which integers become unsigned 32-bit numbers; tensors: {name: (extents, floats)}, F32."""

    def text(value):
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def value(v):
        if isinstance(v, bool):
            return struct.pack("<I?", 7, v)
        if isinstance(v, int):
            return struct.pack("<II", 4, v)
        if isinstance(v, float):
            return struct.pack("<If", 6, v)
        if isinstance(v, str):
            return struct.pack("<I", STRING) + text(v)
        if v and isinstance(v[0], int):
            return struct.pack(f"<IIQ{len(v)}i", ARRAY, 5, len(v), *v)
        return struct.pack("<IIQ", ARRAY, STRING, len(v)) + b"".join(text(s) for s in v)

    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    header += b"".join(text(key) + value(v) for key, v in metadata.items())
    data = b""
    for name, (extents, floats) in tensors.items():
        header += text(name) + struct.pack(f"<I{len(extents)}QIQ", len(extents), *extents, 0, len(data))
        data += struct.pack(f"<{len(floats)}f", *floats)
        data += bytes(padded(len(data)) - len(data))
    with open(path, "wb") as file:
        file.write(header + bytes(padded(len(header)) - len(header)) + data)

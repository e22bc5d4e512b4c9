# SPDX-License-Identifier: Apache-2.0
"""Writing and reading GGUF version 3 files with F32, F16 and Q8_0 tensors (layout: ggml, docs/gguf.md)."""
import struct

import numpy as np

F32, F16, Q8_0 = 0, 1, 8
_ALIGN = 32


class U32(int):
    """An integer to be stored as u32; a plain int array is stored as i32."""


def quantize_q8_0(x):
    """Blocks of 32 along the rows, a half scale = max|x| / 127 and 32 rounded bytes each, as raw bytes."""
    blocks = np.ascontiguousarray(x, np.float32).reshape(-1, 32)
    scale = (np.abs(blocks).max(1) / 127).astype(np.float16)
    wide = scale.astype(np.float32)
    inverse = np.divide(1, wide, out=np.zeros_like(wide), where=wide > 0)
    q = np.clip(np.rint(blocks * inverse[:, None]), -127, 127).astype(np.int8)
    return np.concatenate([scale.view(np.uint8).reshape(-1, 2), q.view(np.uint8)], 1).tobytes()


def dequantize_q8_0(raw, shape):
    blocks = np.frombuffer(raw, np.uint8).reshape(-1, 34)
    scale = blocks[:, :2].copy().view(np.float16).astype(np.float32)
    return (blocks[:, 2:].view(np.int8).astype(np.float32) * scale).reshape(shape)


def _string(s):
    raw = s.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(v):
    if isinstance(v, bool):
        return struct.pack("<IB", 7, v)
    if isinstance(v, U32):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if isinstance(v, str):
        return struct.pack("<I", 8) + _string(v)
    if isinstance(v, list) and isinstance(v[0], str):
        return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(_string(s) for s in v)
    if isinstance(v, list) and isinstance(v[0], int):
        return struct.pack("<IIQ", 9, 5, len(v)) + np.array(v, "<i4").tobytes()
    raise TypeError(type(v))


def write(path, meta, tensors):
    """meta: {key: value}; tensors: {name: (f32 array [rows, row length] or [n], type id)}."""
    head = struct.pack("<IIQQ", 0x46554747, 3, len(tensors), len(meta))
    head += b"".join(_string(k) + _value(v) for k, v in meta.items())
    body = b""
    for name, (x, kind) in tensors.items():
        raw = {F32: lambda: np.asarray(x, "<f4").tobytes(), F16: lambda: np.asarray(x, "<f2").tobytes(),
               Q8_0: lambda: quantize_q8_0(x)}[kind]()
        head += _string(name) + struct.pack("<I", x.ndim) + struct.pack("<%dQ" % x.ndim, *x.shape[::-1])
        head += struct.pack("<IQ", kind, len(body))
        body += raw + bytes(-len(raw) % _ALIGN)
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % _ALIGN) + body)


def read(path):
    """The metadata and the tensors as f32 arrays [rows, row length] or [n]."""
    with open(path, "rb") as f:
        raw = f.read()
    at = 0

    def take(fmt):
        nonlocal at
        out = struct.unpack_from("<" + fmt, raw, at)
        at += struct.calcsize("<" + fmt)
        return out if len(out) > 1 else out[0]

    def string():
        nonlocal at
        n = take("Q")
        at += n
        return raw[at - n:at].decode()

    scalar = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def value(kind):
        if kind == 8:
            return string()
        if kind == 9:
            inner, n = take("IQ")
            return [value(inner) for _ in range(n)]
        return take(scalar[kind])

    magic, version, n_tensors, n_meta = take("IIQQ")
    if (magic, version) != (0x46554747, 3):
        raise ValueError("not a GGUF file of version 3")
    meta = {}
    for _ in range(n_meta):
        key = string()
        meta[key] = value(take("I"))
    infos = []
    for _ in range(n_tensors):
        name, n_dims = string(), take("I")
        dims = [take("Q") for _ in range(n_dims)]
        infos.append((name, dims[::-1]) + tuple(take("IQ")))
    base = at + -at % _ALIGN
    tensors = {}
    for name, shape, kind, offset in infos:
        size = int(np.prod(shape))
        if kind == Q8_0:
            tensors[name] = dequantize_q8_0(raw[base + offset:base + offset + size // 32 * 34], shape)
        else:
            dtype = {F32: "<f4", F16: "<f2"}[kind]
            tensors[name] = np.frombuffer(raw, dtype, size, base + offset).astype(np.float32).reshape(shape)
    return meta, tensors

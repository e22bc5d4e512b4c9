# SPDX-License-Identifier: Apache-2.0
"""Byte-level byte-pair encoding as GGUF files describe it (model "gpt2", pre-tokenizer "smollm").

Pieces: every digit alone, then contractions, an optional blank with letters, an optional blank with other
signs, white space.  A piece is cut into bytes, the bytes are written in the printable byte alphabet, and the
pair of lowest rank is merged until no ranked pair is left, leftmost first among equals.
"""
import collections
import unicodedata

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + ["<|reserved_%d|>" % i for i in range(13)]


def byte_alphabet():
    """The 256 printable stand-ins: printable bytes stand for themselves, the others take U+0100 and up."""
    keep = set(range(0x21, 0x7F)) | set(range(0xA1, 0xAD)) | set(range(0xAE, 0x100))
    table, spare = {}, 0x100
    for byte in range(256):
        if byte in keep:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(spare)
            spare += 1
    return table


BYTE_TO_CHAR = byte_alphabet()
CHAR_TO_BYTE = {c: b for b, c in BYTE_TO_CHAR.items()}


def _is_letter(c):
    return unicodedata.category(c)[0] == "L"


def _is_number(c):
    return unicodedata.category(c)[0] == "N"


def _is_sign(c):
    return not (c.isspace() or _is_letter(c) or _is_number(c))


def _run(text, at, test):
    while at < len(text) and test(text[at]):
        at += 1
    return at


def _pieces_without_digits(text):
    """Second stage on a stretch that holds no number signs."""
    out, i, n = [], 0, len(text)
    while i < n:
        hit = next((c for c in ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d") if text.startswith(c, i)), None)
        if hit:
            out.append(hit)
            i += len(hit)
            continue
        start = i + 1 if text[i] == " " and i + 1 < n else i
        if _is_letter(text[start]):
            end = _run(text, start, _is_letter)
        elif _is_sign(text[start]):
            end = _run(text, start, _is_sign)
        else:  # white space: its last sign is left to what follows, unless nothing does
            end = _run(text, i, str.isspace)
            if end < n and end - i > 1:
                end -= 1
        out.append(text[i:end])
        i = end
    return out


def pieces(text):
    """The pieces within which pairs may be merged."""
    out, i = [], 0
    while i < len(text):
        if _is_number(text[i]):
            out.append(text[i])
            i += 1
        else:
            end = _run(text, i, lambda c: not _is_number(c))
            out += _pieces_without_digits(text[i:end])
            i = end
    return out


def _merge(symbols, a, b):
    out, i = [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and symbols[i] == a and symbols[i + 1] == b:
            out.append(a + b)
            i += 2
        else:
            out.append(symbols[i])
            i += 1
    return out


def learn_merges(text, count):
    """The `count` most frequent pairs in turn; ties go to the pair that sorts last."""
    words = [([BYTE_TO_CHAR[b] for b in w.encode()], n) for w, n in collections.Counter(pieces(text)).items()]
    merges = []
    for _ in range(count):
        pairs = collections.Counter()
        for symbols, n in words:
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += n
        a, b = max(pairs, key=lambda p: (pairs[p], p))
        merges.append((a, b))
        words = [(_merge(s, a, b) if a in s else s, n) for s, n in words]
    return merges


class Tokenizer:
    """Text to ids and back for one list of merges."""

    def __init__(self, merges):
        self.merges = [tuple(m) for m in merges]
        self.tokens = SPECIAL + [BYTE_TO_CHAR[b] for b in range(256)] + [a + b for a, b in self.merges]
        self.ids = {t: i for i, t in enumerate(self.tokens)}
        self.rank = {m: i for i, m in enumerate(self.merges)}
        self._seen = {}

    def _piece(self, piece):
        if piece not in self._seen:
            symbols = [BYTE_TO_CHAR[b] for b in piece.encode()]
            while len(symbols) > 1:
                best = min((p for p in zip(symbols, symbols[1:]) if p in self.rank), key=self.rank.get,
                           default=None)
                if best is None:
                    break
                at = next(i for i in range(len(symbols) - 1) if (symbols[i], symbols[i + 1]) == best)
                symbols[at:at + 2] = [symbols[at] + symbols[at + 1]]
            self._seen[piece] = [self.ids[s] for s in symbols]
        return self._seen[piece]

    def encode(self, text):
        return [i for p in pieces(text) for i in self._piece(p)]

    def decode(self, ids):
        raw = bytes(CHAR_TO_BYTE[c] for i in ids if i >= len(SPECIAL) for c in self.tokens[i])
        return raw.decode("utf-8", "replace")

# SPDX-License-Identifier: Apache-2.0
"""Makes kvist-tiny.gguf from merges.json and statistics.npz; README.md tells what the parts do.

    python3 make.py [--out FILE]

The attention is written down, not trained: layer 0 copies the codes of the last tokens into the state,
layer 1 finds the entries that the same tokens preceded.  What the last tokens alone tell about the next one
(pairs, and 512 contexts of two tokens kept in the feed-forward layers) is fitted to counts.
"""
import argparse
import hashlib
import json
import os
import time

import numpy as np

import gguf_file
from bpe import Tokenizer
from llama import LAYER, Llama

HERE = os.path.dirname(os.path.abspath(__file__))
SEED = 20
D, LAYERS, HEADS, KV, HD, FF, VOCAB, CONTEXT = 512, 2, 8, 2, 64, 256, 1024, 4096
BASE, EPS = 1e20, 1e-5
THETA = BASE ** (-np.arange(HD // 2) / (HD // 2))

# Places in the state
OFFSETS = 5
A = slice(0, 64)                # code of the token
P = [slice(64 + 32 * o, 96 + 32 * o) for o in range(OFFSETS)]   # half code of the token o + 1 back, less own
B = slice(224, 288)             # code less the mean code of the last few tokens
O = slice(288, 352)             # retrieved codes
LM = slice(352, 480)            # what pairs and contexts say about the next token
ONE, PAD, START = 480, 481, 482     # always 1; makes all embeddings equally long; marks the start token
LM_NORM2 = 2.0
TOTAL = 1 + 2 + LM_NORM2        # squared length of an embedding

POSITION_PAIRS = 7              # rotation pairs 0..6 tell positions apart
POSITION_WEIGHT = np.array([5, 3, 2, 2, 2, 1, 1]) / 16
CONTENT = range(14, 62)         # dims of pairs that turn by less than 0.2 within 4,096 tokens
SINK = 63                       # a dim of the slowest pair
OUTLIER_PAIRS, OUTLIER = (10, 20), 4.0   # key channels made larger, and query channels smaller by as much
CODE = [slice(0, 16), slice(16, 24), slice(24, 32), slice(32, 40), slice(40, 48), slice(48, 56),
        slice(56, 64)]
# Per KV head of layer 1: (tokens back, part of the code)
PARTS = [[(1, 0), (2, 1), (3, 2), (4, 1), (5, 2)], [(1, 0), (2, 0), (3, 0)]]


def _head(weights, beta, rest, gain):
    """Weights of the tokens back, logit of a full match, the first entry's share of it, output gain."""
    return {"w": weights, "beta": beta, "rest": rest, "gain": gain}


HEAD_PLANS = [
    [_head([2, 1, 1, .8, .7], 45, .78, 3), _head([2, 1, 1, .8, .7], 45, .84, 2),
     _head([2, 1, 1, 1, 1], 45, .90, 2), _head([2, 1, 1, 1, 1], 45, .94, 2)],
    [_head([1.2, 1, 1], 40, .85, .6), _head([1.2, 1, .9], 40, .90, .6),
     _head([1, .9, 0], 40, .80, 1), _head([1, 0, 0], 40, .75, .5)],
]
COPY = 2.2                       # logit per unit of retrieved code


def codes(freq, rng):
    """Codes f64 [vocabulary, 64] in parts, each half of length 1, frequent tokens pushed apart most."""
    w = np.sqrt(freq).astype(np.float32)
    w /= w.sum()
    parts = []
    for part in CODE:
        size = part.stop - part.start
        c = rng.standard_normal((VOCAB, size)).astype(np.float32)
        c /= np.linalg.norm(c, axis=1, keepdims=True)
        for step in range(150):
            e = np.exp(4 * (c @ c.T)) * w
            np.fill_diagonal(e, 0)
            g = e @ c
            g -= (g * c).sum(1, keepdims=True) * c
            c -= 0.1 * (1 - step / 150) * g / np.linalg.norm(g, axis=1, keepdims=True)
            c /= np.linalg.norm(c, axis=1, keepdims=True)
        parts.append(c.astype(np.float64) * np.sqrt(size / 32))
    return np.concatenate(parts, 1)


class Codes:
    """state f64 [vocabulary, 64]: what stands in A (nothing for token 0); reader . state = 1."""

    def __init__(self, freq, rng):
        self.state = codes(freq, rng)
        self.reader, self.half_reader = self.state / 2, self.state[:, :32].copy()
        self.state[0] = 0


def fit_text(code, statistics, log, steps=300, rate=0.02, prior=20.0, weight_decay=0.02):
    """Low-rank next-token logits for every token and, on top, for every context; Adam on all counts at once.

    Returns lm [vocabulary, 128], delta [contexts, 128] and the output matrix's columns for A, LM and ONE.
    """
    contexts, rank = statistics["contexts"].astype(int), LM.stop - LM.start
    single = np.zeros((VOCAB, VOCAB))
    for a, b, n in statistics["pairs"].astype(int):
        single[a, b] = n
    double = np.zeros((len(contexts), VOCAB))
    for c, b, n in statistics["triples"].astype(int):
        double[c, b] = n
    for (_, a), row in zip(contexts, double):
        single[a] -= row
    unigram = single.sum(0) + double.sum(0) + 0.5
    unigram[:16] = 1e-3
    unigram /= unigram.sum()
    by_token = single + prior * unigram
    for (_, a), row in zip(contexts, double):
        by_token[a] += row
    by_token /= by_token.sum(1, keepdims=True)
    counts = np.concatenate([single + prior * unigram, double + prior * by_token[contexts[:, 1]]])
    weight = counts.sum(1, keepdims=True)
    counts, weight = (counts / weight).astype(np.float32), (weight / weight.sum()).astype(np.float32)
    token = np.concatenate([np.arange(VOCAB), contexts[:, 1]])
    fixed = np.concatenate([code.state[token], np.ones((len(token), 1))], 1).astype(np.float32)
    rng = np.random.default_rng(SEED + 1)
    p = {"fixed": np.zeros((VOCAB, 65), np.float32), "out": rng.standard_normal((VOCAB, rank)) * 0.02,
         "lm": rng.standard_normal((VOCAB, rank)) * 0.1, "delta": np.zeros((len(contexts), rank))}
    p = {k: v.astype(np.float32) for k, v in p.items()}
    p["fixed"][:, 64] = np.log(unigram)
    first, second = ({k: np.zeros_like(v) for k, v in p.items()} for _ in range(2))
    for step in range(steps):
        h = p["lm"][token]
        h[VOCAB:] += p["delta"]
        z = fixed @ p["fixed"].T + h @ p["out"].T
        z -= z.max(1, keepdims=True)
        log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
        if step % 100 == 0 or step == steps - 1:
            log("step %d: %.3f nats (entropy of the smoothed counts %.3f)" % (
                step, -(weight * counts * log_p).sum(), -(weight * counts * np.log(counts)).sum()))
        e = weight * (np.exp(log_p) - counts)
        gh = e @ p["out"]
        g_lm = gh[:VOCAB].copy()
        np.add.at(g_lm, contexts[:, 1], gh[VOCAB:])
        grads = {"fixed": e.T @ fixed, "out": e.T @ h, "lm": g_lm, "delta": gh[VOCAB:]}
        r = rate * (0.5 + 0.5 * np.cos(np.pi * step / steps)) * min(1, (step + 1) / 20)
        for k, g in grads.items():
            first[k] += 0.1 * (g - first[k])
            second[k] += 0.01 * (g * g - second[k])
            p[k] -= (r * first[k] / (1 - 0.9 ** (step + 1))
                     / (np.sqrt(second[k] / (1 - 0.99 ** (step + 1))) + 1e-8)).astype(np.float32)
            if k in ("out", "lm", "delta"):
                p[k] -= np.float32(weight_decay * r) * p[k]
        for k in ("lm", "delta"):
            norm2 = (p[k] ** 2).sum(1, keepdims=True)
            p[k] *= np.minimum(1, np.sqrt(0.98 * LM_NORM2 / np.maximum(norm2, 1e-9)))
    return p["lm"], p["delta"], p["fixed"], p["out"]


def empty_layers():
    return [{"attn_norm": np.ones(D), "attn_q": np.zeros((HEADS * HD, D)), "attn_k": np.zeros((KV * HD, D)),
             "attn_v": np.zeros((KV * HD, D)), "attn_output": np.zeros((D, HEADS * HD)),
             "ffn_norm": np.ones(D), "ffn_gate": np.zeros((FF, D)), "ffn_up": np.zeros((FF, D)),
             "ffn_down": np.zeros((D, FF))}
            for _ in range(LAYERS)]


def write_copying_layer(layer):
    """Heads 0..4 look 1..5 tokens back, 5 at the token, 6 at the last few tokens, 7 at the start token."""
    layer["attn_norm"][:] = np.sqrt(TOTAL / D + EPS)  # undoes the norm
    for kv in range(KV):
        for f in range(POSITION_PAIRS):
            layer["attn_k"][kv * HD + 2 * f, ONE] = np.sqrt(POSITION_WEIGHT[f])
        layer["attn_k"][kv * HD + SINK, START] = 1
        layer["attn_v"][kv * HD:(kv + 1) * HD, A] = np.eye(64)
    root, own, near = np.sqrt(HD), OFFSETS, OFFSETS + 1
    for h in range(OFFSETS + 1):  # score 70 * sum_f weight_f cos((distance - back) theta_f)
        back = (h + 1) % (OFFSETS + 1)
        for f in range(POSITION_PAIRS):
            size = 70 * root * np.sqrt(POSITION_WEIGHT[f])
            layer["attn_q"][h * HD + 2 * f, ONE] = size * np.cos(back * THETA[f])
            layer["attn_q"][h * HD + 2 * f + 1, ONE] = -size * np.sin(back * THETA[f])
    for f in range(2, 6):  # score 8 * sum_f cos(distance theta_f): a bump some six tokens wide
        layer["attn_q"][near * HD + 2 * f, ONE] = 8 * root / np.sqrt(POSITION_WEIGHT[f])
    layer["attn_q"][(HEADS - 1) * HD + SINK, ONE] = 20 * root
    out = layer["attn_output"]
    for o in range(OFFSETS):  # at the first entry all of these cancel, so that its state is short
        out[P[o], o * HD:o * HD + 32] = np.eye(32)
        out[P[o], own * HD:own * HD + 32] = -np.eye(32)
    out[B, own * HD:(own + 1) * HD] = np.eye(64)
    out[B, near * HD:(near + 1) * HD] = -np.eye(64)


def code_rows(back, part, scale):
    """f64 [part size, D]: reads one part of the code of the token `back` before, scaled to unit length."""
    at = np.arange(CODE[part].start, CODE[part].stop)
    rows = np.zeros((len(at), D))
    scale *= np.sqrt(32 / len(at))
    rows[np.arange(len(at)), A.start + at] = scale
    if back:
        rows[np.arange(len(at)), P[back - 1].start + at] = scale
    return rows


def write_matching_layer(layer, rms, rise):
    """Score = beta * weighted share of matching tokens; first entry: beta * rest more than any other gets."""
    layer["attn_norm"][:] = rms
    root = np.sqrt(HD)
    for kv in range(KV):
        k = layer["attn_k"][kv * HD:(kv + 1) * HD]
        at = CONTENT.start
        places = []
        for back, part in PARTS[kv]:
            size = CODE[part].stop - CODE[part].start
            places.append(slice(at, at + size))
            k[places[-1]] = code_rows(back, part, 1)
            at += size
        k[SINK, ONE] = 1
        layer["attn_v"][kv * HD:(kv + 1) * HD, B] = np.eye(64)
        for g, plan in enumerate(HEAD_PLANS[kv]):
            h = kv * (HEADS // KV) + g
            q = layer["attn_q"][h * HD:(h + 1) * HD]
            w = plan["beta"] * root * np.array(plan["w"]) / sum(plan["w"])
            for place, size, (back, part) in zip(places, w, PARTS[kv]):
                q[place] = code_rows(back - 1, part, size)
            q[SINK, ONE] = plan["beta"] * root * plan["rest"] / rise
            for f in OUTLIER_PAIRS:
                q[2 * f:2 * f + 2] /= OUTLIER
            layer["attn_output"][O, h * HD:(h + 1) * HD] = plan["gain"] * np.eye(64)
        for f in OUTLIER_PAIRS:
            k[2 * f:2 * f + 2] *= OUTLIER


def write_contexts(layer, rms, code, contexts, delta):
    """Hidden unit i fires when the last two tokens are context i and adds delta[i] to LM."""
    layer["ffn_norm"][:] = rms
    sharp, level = 12.0, 1.6
    for i, (a, b) in enumerate(contexts):
        layer["ffn_gate"][i, P[0]] = sharp * code.half_reader[a]
        layer["ffn_gate"][i, A.start:A.start + 32] = sharp * code.half_reader[a]
        layer["ffn_gate"][i, A] += sharp * code.reader[b]
        layer["ffn_gate"][i, ONE] = -sharp * level
    fires = sharp * (2 - level)
    fires *= 1 / (1 + np.exp(-fires))
    layer["ffn_up"][:, ONE] = 1
    layer["ffn_down"][LM, :len(contexts)] = delta.T / fires


def sample(statistics, n, rng):
    """The start token and a random walk over the counted pairs, to measure lengths of states on."""
    pairs = statistics["pairs"].astype(int)
    ids = [0, int(pairs[rng.integers(len(pairs)), 0])]
    while len(ids) < n:
        rows = pairs[pairs[:, 0] == ids[-1]]
        rows = rows if len(rows) else pairs
        ids.append(int(rng.choice(rows[:, 1], p=rows[:, 2] / rows[:, 2].sum())))
    return ids


def assemble(meta, code, statistics, text):
    lm, delta, out_fixed, out_lm = text
    emb = np.zeros((VOCAB, D))
    emb[:, A], emb[:, LM], emb[:, ONE] = code.state, lm, 1
    emb[0, START] = 1
    emb[:, PAD] = np.sqrt(TOTAL - (emb ** 2).sum(1))
    out = np.zeros((VOCAB, D))
    out[:, A], out[:, ONE], out[:, LM] = out_fixed[:, :64], out_fixed[:, 64], out_lm
    out[:, O] = COPY * code.reader
    layers = empty_layers()
    contexts = statistics["contexts"].astype(int)
    ids = sample(statistics, 1024, np.random.default_rng(SEED + 2))

    def model(final):
        t = {"token_embd.weight": emb}
        for i, layer in enumerate(layers):
            t.update({"blk.%d.%s.weight" % (i, n): layer[n] for n in LAYER})
        t.update({"output_norm.weight": np.full(D, final), "output.weight": out})
        return Llama(meta, {k: v.astype(np.float32) for k, v in t.items()})

    def lengths(site):
        """rms of the states at one norm, from the constant that the norm divides by it."""
        seen = model(1.0).states(ids)[site]
        return np.sqrt((seen.astype(np.float64) ** 2).mean(1) + EPS)

    write_copying_layer(layers[0])
    r = lengths(1)
    write_contexts(layers[0], r[16:].mean(), code, contexts[0::2], delta[0::2])
    r = lengths(2)
    rms, rise = r[16:].mean(), r[16:].mean() / r[0] - 1
    write_matching_layer(layers[1], rms, rise)
    r = lengths(3)
    write_contexts(layers[1], r[16:].mean(), code, contexts[1::2], delta[1::2])
    r = lengths(4)
    final = r[16:].mean()
    return model(final), {"rms": rms, "rise": rise, "final": final, "spread": r[16:].std() / final}


def metadata(tok):
    u = gguf_file.U32
    return {
        "general.architecture": "llama", "general.name": "kvist-tiny", "general.file_type": u(7),
        "general.license": "apache-2.0", "general.quantization_version": u(2),
        "llama.context_length": u(CONTEXT), "llama.embedding_length": u(D), "llama.block_count": u(LAYERS),
        "llama.feed_forward_length": u(FF), "llama.attention.head_count": u(HEADS),
        "llama.attention.head_count_kv": u(KV), "llama.attention.key_length": u(HD),
        "llama.attention.value_length": u(HD), "llama.attention.layer_norm_rms_epsilon": float(EPS),
        "llama.rope.dimension_count": u(HD), "llama.rope.freq_base": float(BASE),
        "llama.vocab_size": u(VOCAB),
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": tok.tokens,
        "tokenizer.ggml.token_type": [3] * 16 + [1] * (VOCAB - 16),
        "tokenizer.ggml.merges": [a + " " + b for a, b in tok.merges],
        "tokenizer.ggml.bos_token_id": u(1), "tokenizer.ggml.eos_token_id": u(2),
        "tokenizer.ggml.unknown_token_id": u(0), "tokenizer.ggml.padding_token_id": u(2),
        "tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_space_prefix": False,
    }


def main():
    ap = argparse.ArgumentParser(description=__doc__)
    ap.add_argument("--out", default=os.path.join(HERE, "kvist-tiny.gguf"))
    args = ap.parse_args()
    t0 = time.time()
    log = lambda s: print("%6.1fs %s" % (time.time() - t0, s), flush=True)
    with open(os.path.join(HERE, "merges.json"), encoding="utf-8") as f:
        tok = Tokenizer(json.load(f))
    statistics = dict(np.load(os.path.join(HERE, "statistics.npz")))
    freq = np.full(VOCAB, 20.0)
    np.add.at(freq, statistics["pairs"][:, 1].astype(int), statistics["pairs"][:, 2])
    code = Codes(freq, np.random.default_rng(SEED))
    log("codes done")
    text = fit_text(code, statistics, log)
    model, facts = assemble(metadata(tok), code, statistics, text)
    log(str(facts))
    gguf_file.write(args.out, model.meta, {k: (v, gguf_file.Q8_0 if v.ndim == 2 else gguf_file.F32)
                                           for k, v in model.tensors.items()})
    with open(args.out, "rb") as f:
        raw = f.read()
    log("%s: %d bytes, sha256 %s" % (args.out, len(raw), hashlib.sha256(raw).hexdigest()))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Makes kvist-tiny.gguf."""
import argparse
import hashlib
import json
import os
import re
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

# Places in the residual stream
OFFSETS = 6
A = slice(0, 64)                                                  # code of this token
P = [slice(64 + 32 * o, 96 + 32 * o) for o in range(OFFSETS)]     # half code of the token o + 1 before, less own
B = slice(256, 320)                                               # code less the mean code of the last few tokens
O = slice(320, 384)                                               # retrieved code
LM = slice(384, 496)                                              # learnt embedding
ONE, PAD = 496, 497
LM_NORM2 = 2.0



def _head(w, beta, tau, gain):
    """Weights of the offsets 1..6, sharpness, share of a full match at which the start token wins, output gain."""
    return {"w": w, "beta": beta, "tau": tau, "gain": gain / 20}


GAINS = {
    "rms1": (18 / 512) ** 0.5, "rms2": (18 / 512) ** 0.5, "sink_rise": 1.1, "copy": 32.0,
    "heads": [
        [_head([1, 1, 1, 1, .9, .8], 45, .68, 2), _head([1, 1, 1, 1, .9, .8], 45, .8, 2),
         _head([1, 1, 1, 1, .5, .3], 45, .7, 2), _head([1, 1, 1, 1, 1, 1], 45, .62, 1.5)],
        [_head([1, 1, 1, 0, 0, 0], 36, .85, 2), _head([1, 1, .8, 0, 0, 0], 36, .9, 1),
         _head([.9, 1, 1, 0, 0, 0], 36, .82, 1), _head([1, 1, 1, 0, 0, 0], 36, .85, 0)],
    ],
}
POSITION_PAIRS = 7                      # rotation pairs 0..6 tell positions apart
CONTENT = np.arange(14, 62)             # dims of the pairs that hardly turn within 4,096 tokens
SINK = 63


def codes(freq, rng):
    """[vocabulary, 64]: 8 parts of 8 dims, each of norm 1/2, pushed apart, frequent tokens most."""
    w = np.sqrt(freq)
    w = (w / w.sum()).astype(np.float32)
    parts = []
    for _ in range(8):
        c = rng.standard_normal((VOCAB, 8)).astype(np.float32)
        c /= np.linalg.norm(c, axis=1, keepdims=True)
        for step in range(150):
            e = np.exp(4 * (c @ c.T))
            np.fill_diagonal(e, 0)
            g = (e * w[None]) @ c
            g -= (g * c).sum(1, keepdims=True) * c
            c -= 0.1 * (1 - step / 150) * g / np.linalg.norm(g, axis=1, keepdims=True)
            c /= np.linalg.norm(c, axis=1, keepdims=True)
        parts.append(c / 2)
    return np.concatenate(parts, 1)


def position_weights():
    w = np.array([5, 3, 2, 2, 2, 1, 1], float)
    return w / w.sum()


def build(code, lm, gains):
    """The constructive weights; lm f32 [vocabulary, 112]."""
    t = {}
    emb = np.zeros((VOCAB, D))
    emb[:, A] = code
    emb[0, A] = 0
    emb[:, LM] = lm
    emb[:, ONE] = 1
    total = 1 + 2 + LM_NORM2
    emb[:, PAD] = np.sqrt(np.maximum(total - (emb ** 2).sum(1), 0))
    t["token_embd.weight"] = emb
    layers = []
    for _ in range(LAYERS):
        layers.append({"attn_q": np.zeros((HEADS * HD, D)), "attn_k": np.zeros((KV * HD, D)),
                       "attn_v": np.zeros((KV * HD, D)), "attn_output": np.zeros((D, HEADS * HD)),
                       "ffn_gate": np.zeros((FF, D)), "ffn_up": np.zeros((FF, D)), "ffn_down": np.zeros((D, FF)),
                       "attn_norm": np.ones(D), "ffn_norm": np.ones(D)})
    sq = np.sqrt(HD)

    # Layer 0: heads 0..5 look o + 1 tokens back, head 6 at the token itself, head 7 at the last few tokens.
    l = layers[0]
    l["attn_norm"][:] = np.sqrt(total / D + EPS)
    wpos = position_weights()
    for kv in range(KV):
        for f in range(POSITION_PAIRS):
            l["attn_k"][kv * HD + 2 * f, ONE] = np.sqrt(wpos[f])
        l["attn_v"][kv * HD:(kv + 1) * HD, A] = np.eye(64)
    for h in range(HEADS):
        q = l["attn_q"][h * HD:(h + 1) * HD]
        if h < 7:
            back = h + 1 if h < OFFSETS else 0
            for f in range(POSITION_PAIRS):
                q[2 * f, ONE] = 70 * sq * np.sqrt(wpos[f]) * np.cos(back * THETA[f])
                q[2 * f + 1, ONE] = -70 * sq * np.sqrt(wpos[f]) * np.sin(back * THETA[f])
        else:
            for f in range(2, 6):
                q[2 * f, ONE] = 8 * sq / np.sqrt(wpos[f])
    wo = l["attn_output"]
    for o in range(OFFSETS):
        wo[P[o], o * HD:o * HD + 32] = np.eye(32)
        wo[P[o], 6 * HD:6 * HD + 32] = -np.eye(32)
    wo[B, 6 * HD:7 * HD] = np.eye(64)
    wo[B, 7 * HD:8 * HD] = -np.eye(64)

    # Layer 1
    l = layers[1]
    l["attn_norm"][:] = gains["rms1"]

    def half_code(row, part, back, scale):
        """rows += scale * part (8 dims) of the half code of the token `back` before."""
        for i in range(8):
            row[i, A.start + 8 * part + i] += scale
            if back:
                row[i, P[back - 1].start + 8 * part + i] += scale

    plans = [  # per KV head: list of (offset, part of the code)
        [(o, 2 + o % 2) for o in range(1, 7)],
        [(o, part) for o in range(1, 4) for part in (0, 1)],
    ]
    for kv, plan in enumerate(plans):
        k = l["attn_k"][kv * HD:(kv + 1) * HD]
        for n, (o, part) in enumerate(plan):
            rows = np.zeros((8, D))
            half_code(rows, part, o, 2.0)
            k[CONTENT[8 * n:8 * n + 8]] = rows
        k[SINK, ONE] = 1
        for f in range(POSITION_PAIRS):
            k[2 * f, ONE] = 0.5
        l["attn_v"][kv * HD:(kv + 1) * HD, B] = np.eye(64)
        for g in range(HEADS // KV):
            head = gains["heads"][kv][g]
            h = kv * 4 + g
            q = l["attn_q"][h * HD:(h + 1) * HD]
            w = np.array(head["w"], float)
            w = w / w.sum()
            count = [sum(p[0] == o for p in plan) for o in range(1, 7)]
            for n, (o, part) in enumerate(plan):
                rows = np.zeros((8, D))
                half_code(rows, part, o - 1, 2.0 * head["beta"] * sq * w[o - 1] / count[o - 1])
                q[CONTENT[8 * n:8 * n + 8]] = rows
            q[SINK, ONE] = head["beta"] * sq * head["tau"] / gains["sink_rise"]
            l["attn_output"][O, h * HD:(h + 1) * HD] = head["gain"] * np.eye(64)
    for i, l in enumerate(layers):
        for n in LAYER:
            t["blk.%d.%s.weight" % (i, n)] = l[n]
    t["output_norm.weight"] = np.ones(D) * gains["rms2"]
    t["output.weight"] = np.zeros((VOCAB, D))
    return {k: v.astype(np.float32) for k, v in t.items()}


def metadata(tok):
    u = gguf_file.U32
    kinds = [3] * 16 + [1] * (VOCAB - 16)
    return {
        "general.architecture": "llama", "general.name": "kvist-tiny", "general.file_type": u(7),
        "general.license": "apache-2.0", "general.quantization_version": u(2),
        "llama.context_length": u(CONTEXT), "llama.embedding_length": u(D), "llama.block_count": u(LAYERS),
        "llama.feed_forward_length": u(FF), "llama.attention.head_count": u(HEADS),
        "llama.attention.head_count_kv": u(KV), "llama.attention.key_length": u(HD),
        "llama.attention.value_length": u(HD), "llama.attention.layer_norm_rms_epsilon": float(EPS),
        "llama.rope.dimension_count": u(HD), "llama.rope.freq_base": float(BASE), "llama.vocab_size": u(VOCAB),
        "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": tok.tokens,
        "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.merges": [a + " " + b for a, b in tok.merges],
        "tokenizer.ggml.bos_token_id": u(1), "tokenizer.ggml.eos_token_id": u(2),
        "tokenizer.ggml.unknown_token_id": u(0), "tokenizer.ggml.padding_token_id": u(2),
        "tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_space_prefix": False,
    }


def learn_text(states, ids, nxt, lm, out, steps, rng, free, log):
    """Fits the output matrix (columns `free`) and the embedding `lm` by Adam on softmax cross-entropy.

    states f32 [n, D]: normed last hidden state without its LM part; scale f32 [n] in column LM.start is not used.
    """
    x_all, inv = states
    m = [np.zeros_like(out), np.zeros_like(lm)]
    v = [np.zeros_like(out), np.zeros_like(lm)]
    n, batch = len(ids), 2048
    for step in range(steps):
        pick = rng.integers(0, n, batch)
        x = x_all[pick].copy()
        x[:, LM] = lm[ids[pick]] * inv[pick, None]
        z = x @ out.T
        z -= z.max(1, keepdims=True)
        p = np.exp(z)
        p /= p.sum(1, keepdims=True)
        loss = -np.log(p[np.arange(batch), nxt[pick]] + 1e-30).mean()
        p[np.arange(batch), nxt[pick]] -= 1
        p /= batch
        g_out = (p.T @ x) * free
        g_x = p @ out
        g_lm = np.zeros_like(lm)
        np.add.at(g_lm, ids[pick], g_x[:, LM] * inv[pick, None])
        rate = 0.02 * (0.5 + 0.5 * np.cos(np.pi * step / steps)) * min(1, (step + 1) / 20)
        for i, (w, g, r) in enumerate(((out, g_out, rate), (lm, g_lm, rate))):
            m[i] += 0.1 * (g - m[i])
            v[i] += 0.01 * (g * g - v[i])
            hat = np.sqrt(v[i] / (1 - 0.99 ** (step + 1))) + 1e-8
            w -= (r * (m[i] / (1 - 0.9 ** (step + 1))) / hat).astype(np.float32)
            w -= 0.02 * r * w * (free if i == 0 else 1)
        norm2 = (lm ** 2).sum(1, keepdims=True)
        lm *= np.minimum(1, np.sqrt(0.98 * LM_NORM2 / np.maximum(norm2, 1e-9)))
        if step % 50 == 0:
            log("step %d loss %.3f" % (step, loss))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--corpus", required=True)
    ap.add_argument("--out", default=os.path.join(HERE, "kvist-tiny.gguf"))
    ap.add_argument("--steps", type=int, default=300)
    args = ap.parse_args()
    t0 = time.time()
    log = lambda s: print("%6.1fs %s" % (time.time() - t0, s), flush=True)
    rng = np.random.default_rng(SEED)
    text = open(args.corpus, encoding="utf-8").read()
    text = re.sub(r" +", " ", re.sub(r"(?<!\n)\n(?!\n)", " ", text))
    tok = Tokenizer(json.load(open(os.path.join(HERE, "merges.json"))))
    ids = np.array(tok.encode(text))
    log("%d tokens" % len(ids))
    freq = np.bincount(ids, minlength=VOCAB) + 20.0
    code = codes(freq, rng)
    g = code.reshape(VOCAB, 8, 8)[:, 0] * 2
    gg = g @ g.T - 2 * np.eye(VOCAB)
    f64 = code @ code.T / 2 - 2 * np.eye(VOCAB)
    log("codes: part max %.2f std %.3f; whole max %.2f std %.3f" % (gg.max(), gg[gg > -1].std(), f64.max(), f64[f64 > -1].std()))
    gains = GAINS
    meta = metadata(tok)
    lm = (rng.standard_normal((VOCAB, LM.stop - LM.start)) * 0.1).astype(np.float32)
    model = Llama(meta, build(code, lm, gains))
    # states on the corpus
    n_train = int(0.9 * len(ids))
    T = 512
    xs, invs, cur, nxt = [], [], [], []
    x_lm = np.zeros(D)
    for at in range(0, n_train - T, T):
        w = np.concatenate([[0], ids[at:at + T]])
        h, _, _ = model.forward(w[:-1], want_hidden=True)
        xs.append(h)
        invs.append(h[:, ONE])
        cur.append(w[:-1])
        nxt.append(w[1:])
    xs, invs, cur, nxt = np.concatenate(xs), np.concatenate(invs), np.concatenate(cur), np.concatenate(nxt)
    log("states %s, ONE mean %.3f std %.3f" % (xs.shape, invs.mean(), invs.std()))
    out = np.zeros((VOCAB, D), np.float32)
    out[:, O] = code * gains["copy"] / 2
    free = np.ones((1, D), np.float32)
    free[:, O] = 0
    free[:, B] = 0
    xs[:, PAD] = 0
    free[:, PAD] = 0
    learn_text((xs, invs), cur, nxt, lm, out, args.steps, rng, free, log)
    t = build(code, lm, gains)
    t["output.weight"] = out
    kinds = {k: gguf_file.Q8_0 if v.ndim == 2 else gguf_file.F32 for k, v in t.items()}
    gguf_file.write(args.out, meta, {k: (v, kinds[k]) for k, v in t.items()})
    log("%s: %d bytes" % (args.out, os.path.getsize(args.out)))


if __name__ == "__main__":
    main()

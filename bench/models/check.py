# SPDX-License-Identifier: Apache-2.0
"""Measures kvist-tiny.gguf: retrieval, what eviction does to it, fidelity on text, head roles, magnitudes."""
import argparse
import os
import re

import numpy as np

from bpe import Tokenizer
from llama import Llama
import tasks

HERE = os.path.dirname(os.path.abspath(__file__))


def wilson(k, n, z=1.96):
    p, d = k / n, 1 + z * z / n
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / d
    return (p + z * z / (2 * n)) / d - half, (p + z * z / (2 * n)) / d + half


def log_softmax(z):
    z = z.astype(np.float64)
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def all_kept(model, n):
    return [np.ones((model.kv_heads, n), bool) for _ in model.layers]


def keep_random(model, n, budget, rng):
    """First 4 and last 32 entries and a random choice of the rest, each KV head for itself."""
    keep = [np.zeros((model.kv_heads, n), bool) for _ in model.layers]
    for layer in keep:
        for row in layer:
            row[:4] = row[n - 32:] = True
            row[4 + rng.choice(n - 36, budget - 36, replace=False)] = True
    return keep


def keep_streaming(model, n, budget):
    keep = [np.zeros((model.kv_heads, n), bool) for _ in model.layers]
    for layer in keep:
        layer[:, :4] = layer[:, n - budget + 4:] = True
    return keep


def masses(model, probs, n):
    """Attention mass per entry of the context, summed over new queries and the query group."""
    group = model.heads // model.kv_heads
    return [np.stack([sum(layer[kv * group + g][:, :n].sum(0) for g in range(group))
                      for kv in range(model.kv_heads)]) for layer in probs]


def keep_top(model, mass, budget):
    keep = []
    for layer in mass:
        rows = np.zeros(layer.shape, bool)
        for row, m in zip(rows, layer):
            row[np.argsort(-m, kind="stable")[:budget]] = True
        keep.append(rows)
    return keep


def answer_right(model, cache, keep, ask, answer):
    logits, _, _ = model.forward(ask + answer[:-1], cache, keep)
    return bool((logits[len(ask) - 1:].argmax(1) == answer).all())


def retrieval(model, tok, story, length, frames, contexts, seed, log):
    """Exact answers with the full cache and with parts of it gone."""
    rng = np.random.default_rng(seed)
    kinds = ("full", "needle dropped", "random 20%", "window 20%", "start dropped", "needle out of layer 1 KV 0",
             "needle out of layer 1 KV 1", "oracle 20%")
    right, total, per_frame = {k: 0 for k in kinds}, 0, {}
    for _ in range(contexts):
        ids, asked = tasks.context(tok, story, length, frames, rng)
        n = len(ids)
        _, cache, _ = model.forward(ids)
        for ask, answer, (first, last), name in asked:
            keeps = {"full": all_kept(model, n), "random 20%": keep_random(model, n, n // 5, rng),
                     "window 20%": keep_streaming(model, n, n // 5)}
            for kind in ("needle dropped", "start dropped", kinds[5], kinds[6]):
                keeps[kind] = all_kept(model, n)
            for layer in keeps["needle dropped"]:
                layer[:, first:last] = False
            for layer in keeps["start dropped"]:
                layer[:, 0] = False
            keeps[kinds[5]][-1][0, first:last] = False
            keeps[kinds[6]][-1][1, first:last] = False
            _, _, probs = model.forward(ask + answer[:-1], cache, want_probs=True)
            keeps["oracle 20%"] = keep_top(model, masses(model, probs, n), n // 5)
            total += 1
            for kind in kinds:
                ok = answer_right(model, cache, keeps[kind], ask, answer)
                right[kind] += ok
                if kind == "full":
                    a, b = per_frame.get(name, (0, 0))
                    per_frame[name] = (a + ok, b + 1)
    out = {}
    for kind in kinds:
        lo, hi = wilson(right[kind], total)
        out[kind] = right[kind] / total
        log("    %-28s %4d/%d = %.3f (%.3f..%.3f)" % (kind, right[kind], total, right[kind] / total, lo, hi))
    log("    by frame: " + ", ".join("%s %d/%d" % (k, a, b) for k, (a, b) in per_frame.items()))
    return out


def fidelity(model, tok, text, length, windows, log, start=True):
    """KL(full || part) over 64 scored tokens after windows of `length` entries; budget 20 %."""
    ids = tok.encode(text)
    budget, rows, nll, base = length // 5, {}, [], []
    rng = np.random.default_rng(7)
    roles = None
    for i in range(windows):
        at = i * (len(ids) // windows) + min(500, len(ids) // windows - length - 64)
        take = ids[at:at + length + 64]
        w = ([0] + take)[:length + 65] if start else take
        n = length
        _, cache, _ = model.forward(w[:n])
        tail = w[n - 0:n + 64]
        logits, _, probs = model.forward(tail, cache, want_probs=True)
        full = log_softmax(logits)
        target = np.array(w[n + 1:n + 65]) if len(w) > n + 64 else np.array(w[n + 1:])
        nll.append(-full[np.arange(len(target)), target].mean())
        r = [[np.stack([p[:, 0].mean(), (p[:, :] * (p[:, :] > 0)).max(1).mean(),
                        -(p * np.log(p + 1e-30)).sum(1).mean()]) for p in layer] for layer in probs]
        roles = np.array(r) if roles is None else roles + np.array(r)
        start_gone = all_kept(model, n)
        for layer in start_gone:
            layer[:, 0] = False
        bare = keep_streaming(model, n, budget)
        for layer in bare:
            layer[:, :4] = False
            layer[:, n - budget:] = True
        parts = {"random 4+32": keep_random(model, n, budget, rng), "sinks + window": keep_streaming(model, n, budget),
                 "window only": bare, "oracle mass": keep_top(model, masses(model, probs, n), budget),
                 "start dropped": start_gone}
        for name, keep in parts.items():
            part = log_softmax(model.forward(tail, cache, keep)[0])
            kl = (np.exp(full) * (full - part)).sum(1).mean()
            agree = (full.argmax(1) == part.argmax(1)).mean()
            rows.setdefault(name, []).append((kl, agree))
    log("    text NLL %.3f nats a token (perplexity %.1f), %d windows" % (np.mean(nll), np.exp(np.mean(nll)), windows))
    for name, v in rows.items():
        v = np.array(v)
        log("    %-16s KL %.4f  top-1 agreement %.3f  (KL by window %s)" % (
            name, v[:, 0].mean(), v[:, 1].mean(), " ".join("%.3f" % x for x in v[:, 0])))
    return {k: float(np.mean([x[0] for x in v])) for k, v in rows.items()}, float(np.mean(nll)), roles / windows


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", default=os.path.join(HERE, "kvist-tiny.gguf"))
    ap.add_argument("--text", required=True)
    ap.add_argument("--contexts", type=int, default=4)
    ap.add_argument("--lengths", default="512,1024")
    args = ap.parse_args()
    model = Llama.load(args.model)
    tok = Tokenizer([m.split(" ") for m in model.meta["tokenizer.ggml.merges"]])
    text = open(args.text, encoding="utf-8").read()
    story = tasks.sentences(text)
    lengths = [int(x) for x in args.lengths.split(",")]
    for length in lengths:
        print("facts8 at", length)
        retrieval(model, tok, story, length, tasks.FRAMES, args.contexts, length, print)
        print("passkey at", length)
        retrieval(model, tok, story, length, tasks.FRAMES[:1], 2 * args.contexts, length + 1, print)
    for length in lengths:
        print("text at", length)
        _, _, roles = fidelity(model, tok, text, length, 4, print)
        print("text at", length, "no start token")
        fidelity(model, tok, text, length, 4, print, start=False)
    for i, layer in enumerate(roles):
        for h, r in enumerate(layer):
            print("layer %d head %d: p(first) %.3f  mean max p %.3f  entropy %.3f" % (i, h, *r))


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""Measures a bundled model and says whether it is fit for its use; exit status 1 if a bound is missed.

    python3 check.py [--model FILE] [--text FILE] [--lengths 512,1024,2048] [--contexts 12]

Retrieval: facts8 and passkey with the whole cache and with parts of it gone.  Text: divergence from the whole
cache over 64 tokens after each window.  Also: what the heads do, and how large keys and values get.
"""
import argparse
import os
import sys

import numpy as np

import tasks
from bpe import Tokenizer
from llama import Llama

HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT_TEXT = os.path.join(HERE, "..", "texts", "story.txt")
SINKS, RECENT, SCORED = 4, 32, 64


def wilson(k, n, z=1.96):
    """95 % interval of a share."""
    p, d = k / n, 1 + z * z / n
    half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / d
    return (p + z * z / (2 * n)) / d - half, (p + z * z / (2 * n)) / d + half


def log_softmax(z):
    z = z.astype(np.float64)
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


class Keep:
    """Choices of kept entries: per layer bool [kv_heads, entries]."""

    def __init__(self, model, n):
        self.model, self.n = model, n

    def full(self):
        return [np.ones((self.model.kv_heads, self.n), bool) for _ in self.model.layers]

    def without(self, first, last, layer=None, kv_head=None):
        keep = self.full()
        for i, k in enumerate(keep):
            if layer is None or i == layer:
                k[slice(None) if kv_head is None else kv_head, first:last] = False
        return keep

    def random(self, budget, rng):
        """First 4 and last 32 entries, the rest drawn by each KV head for itself."""
        keep = self.without(0, self.n)
        for layer in keep:
            for row in layer:
                row[:SINKS] = row[self.n - RECENT:] = True
                drawn = rng.choice(self.n - SINKS - RECENT, budget - SINKS - RECENT, replace=False)
                row[SINKS + drawn] = True
        return keep

    def window(self, budget, sinks):
        keep = self.without(0, self.n)
        for layer in keep:
            layer[:, :sinks] = layer[:, self.n - budget + sinks:] = True
        return keep

    def top(self, probs, budget):
        """The entries of the context that get most attention from the new queries of each query group."""
        group = self.model.heads // self.model.kv_heads
        keep = self.without(0, self.n)
        for layer, p in zip(keep, probs):
            for kv, row in enumerate(layer):
                mass = sum(p[kv * group + g][:, :self.n].sum(0) for g in range(group))
                row[np.argsort(-mass, kind="stable")[:budget]] = True
        return keep


class Report:
    """Prints figures and collects the bounds that they miss."""

    def __init__(self):
        self.missed = 0

    def say(self, text):
        print(text, flush=True)

    def bound(self, what, value, low=-np.inf, high=np.inf):
        ok = low <= value <= high
        self.missed += not ok
        limit = " ".join(s for s in (">= %g" % low if np.isfinite(low) else "",
                                     "<= %g" % high if np.isfinite(high) else "") if s)
        self.say("  %s  %s: %.4g (wanted %s)" % ("ok    " if ok else "MISSED", what, value, limit))


def answered(model, cache, keep, ask, answer):
    logits, _, _ = model.forward(ask + answer[:-1], cache, keep)
    return bool((logits[len(ask) - 1:].argmax(1) == answer).all())


def retrieval(model, tok, story, name, length, frames, contexts, report):
    """Shares of exact answers when the line, the first entry, or all but a fifth of the entries are gone."""
    rng = np.random.default_rng(1000 * len(frames) + length)
    right, total, mass, last_layer = {}, 0, [], len(model.layers) - 1
    for _ in range(contexts):
        ids, asked = tasks.context(tok, story, length, frames, rng)
        n = len(ids)
        keep = Keep(model, n)
        _, cache, _ = model.forward(ids)
        half_cache = [(k.astype(np.float16).astype(np.float32), v.astype(np.float16).astype(np.float32))
                      for k, v in cache]
        for ask, answer, (first, last), _ in asked:
            logits, _, probs = model.forward(ask + answer[:-1], cache, want_probs=True)
            rows = slice(len(ask) - 1, None)
            kinds = {"random 20 %": keep.random(n // 5, rng),
                     "sinks + window 20 %": keep.window(n // 5, SINKS),
                     "oracle 20 %": keep.top(probs, n // 5), "first entry dropped": keep.without(0, 1),
                     "line dropped": keep.without(first, last),
                     "line dropped, last layer": keep.without(first, last, last_layer)}
            for kv in range(model.kv_heads):
                kinds["line dropped, last layer, KV head %d" % kv] = keep.without(first, last, last_layer, kv)
            for kind, k in kinds.items():
                right[kind] = right.get(kind, 0) + answered(model, cache, k, ask, answer)
            ok = bool((logits[rows].argmax(1) == answer).all())
            right["whole cache"] = right.get("whole cache", 0) + ok
            right["whole cache in f16"] = right.get("whole cache in f16", 0) + answered(
                model, half_cache, None, ask, answer)
            mass.append([p[rows, first:last].sum(1).mean() for p in probs[last_layer]])
            total += 1
    report.say("%s at %d tokens (%d questions)" % (name, length, total))
    for kind in sorted(right, key=lambda k: -right[k]):
        report.say("    %-38s %.3f (%.3f..%.3f)" % ((kind, right[kind] / total) + wilson(right[kind], total)))
    mass = np.mean(mass, 0)
    report.say("    attention of the last layer's heads on the line: " + " ".join("%.2f" % m for m in mass))
    share = {k: v / total for k, v in right.items()}
    report.bound("whole cache", share["whole cache"], low=0.95)
    report.bound("whole cache in f16", share["whole cache in f16"], low=0.95)
    report.bound("line dropped", share["line dropped"], high=0.05)
    report.bound("random 20 %", share["random 20 %"], high=0.25)
    report.bound("oracle 20 %", share["oracle 20 %"], low=0.9)
    report.bound("best head's attention on the line", mass.max(), low=0.9)


def fidelity(model, tok, text, length, windows, start, report):
    """KL(whole cache || part of it), 20 % kept, windows spread over the text."""
    ids = tok.encode(text)
    rng = np.random.default_rng(length)
    rows, nll, first, agree = {}, [], [], {}
    budget = length // 5
    for i in range(windows):
        at = i * (len(ids) // windows)
        at = min(at + 500, len(ids) - length - SCORED - 1)
        w = ([0] if start else []) + ids[at:at + length + SCORED + 1]
        _, cache, _ = model.forward(w[:length])
        tail, target = w[length:length + SCORED], np.array(w[length + 1:length + SCORED + 1])
        logits, _, probs = model.forward(tail, cache, want_probs=True)
        full = log_softmax(logits)
        nll.append(-full[np.arange(SCORED), target].mean())
        first.append([[p[:, 0].mean() for p in layer] for layer in probs])
        keep = Keep(model, length)
        kinds = {"oracle": keep.top(probs, budget), "random": keep.random(budget, rng),
                 "sinks + window": keep.window(budget, SINKS), "window only": keep.window(budget, 0),
                 "first entry dropped": keep.without(0, 1)}
        for kind, k in kinds.items():
            part = log_softmax(model.forward(tail, cache, k)[0])
            rows.setdefault(kind, []).append((np.exp(full) * (full - part)).sum(1).mean())
            agree.setdefault(kind, []).append((full.argmax(1) == part.argmax(1)).mean())
    report.say("text at %d tokens, %s (%d windows): %.3f nats a token" % (
        length, "start token first" if start else "no start token", windows, np.mean(nll)))
    for kind, v in rows.items():
        report.say("    %-20s KL %.4f  top-1 agreement %.3f   by window %s" % (
            kind, np.mean(v), np.mean(agree[kind]), " ".join("%.3f" % x for x in v)))
    kl = {k: np.mean(v) for k, v in rows.items()}
    report.bound("nats a token", np.mean(nll), high=5)
    report.bound("KL oracle / KL random", kl["oracle"] / kl["random"], high=0.5)
    report.bound("KL window only / KL sinks + window", kl["window only"] / kl["sinks + window"], low=2)
    if start:
        report.bound("KL first entry dropped", kl["first entry dropped"], low=0.5)
    return np.mean(first, 0)


def whole_text(model, tok, text, length, report):
    """Nats a token over the second half of windows, with and without what the last layer's attention adds."""
    ids = tok.encode(text)
    with_it, without = [], []
    name = "blk.%d.attn_output.weight" % (len(model.layers) - 1)
    plain = Llama(model.meta, dict(model.tensors, **{name: np.zeros_like(model.tensors[name])}))
    for at in range(0, len(ids) - length, length // 2):
        w = [0] + ids[at:at + length]
        target = np.array(w[1:])[length // 2:]
        for m, out in ((model, with_it), (plain, without)):
            z = log_softmax(m.forward(w[:-1])[0][length // 2:])
            out.append(-z[np.arange(len(target)), target].mean())
    report.say("whole text, windows of %d: %.3f nats a token, %.3f without retrieval" % (
        length, np.mean(with_it), np.mean(without)))
    report.bound("gain by retrieval", np.mean(without) - np.mean(with_it), low=0)


def heads(model, tok, text, length, first, report):
    """Mean attention by distance, on the first entry, entropy; sizes of keys and values."""
    ids = [0] + tok.encode(text)[500:500 + length - 1]
    _, cache, probs = model.forward(ids, want_probs=True)
    at = np.arange(length // 2, length)
    report.say("heads (text, %d tokens): share at 0..6 back, on the first entry, entropy in nats" % length)
    previous, resting, largest = 0, 0, 0.0
    for i, layer in enumerate(probs):
        for h, p in enumerate(layer):
            back = [p[at, at - o].mean() for o in range(7)]
            entropy = -(p[at] * np.log(p[at] + 1e-30)).sum(1).mean()
            previous += max(back[1:]) > 0.9
            resting += first[i][h] > 0.5
            report.say("    layer %d head %d: %s  first %.2f  entropy %.2f" % (
                i, h, " ".join("%.2f" % b for b in back), first[i][h], entropy))
        for kind, x in zip(("keys", "values"), cache[i]):
            size = np.abs(x).reshape(-1, x.shape[-1])
            largest = max(largest, size.max())
            channel = size.max(0)
            report.say("    layer %d %s: largest %.3g, largest channel / median used channel %.3g" % (
                i, kind, size.max(), channel.max() / np.median(channel[channel > 0])))
    report.bound("heads on one place back", previous, low=1)
    report.bound("heads resting on the first entry", resting, low=1)
    report.bound("largest key or value", largest, high=1e4)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--model", default=os.path.join(HERE, "kvist-tiny.gguf"))
    ap.add_argument("--text", default=DEFAULT_TEXT)
    ap.add_argument("--lengths", default="512,1024,2048")
    ap.add_argument("--contexts", type=int, default=12)
    ap.add_argument("--windows", type=int, default=8)
    args = ap.parse_args()
    model, report = Llama.load(args.model), Report()
    tok = Tokenizer([m.split(" ") for m in model.meta["tokenizer.ggml.merges"]])
    with open(args.text, encoding="utf-8") as f:
        text = f.read()
    story = tasks.sentences(text)
    report.bound("bytes of the file", os.path.getsize(args.model), high=4000000)
    for length in map(int, args.lengths.split(",")):
        retrieval(model, tok, story, "facts8", length, tasks.FRAMES, args.contexts, report)
        retrieval(model, tok, story, "passkey", length, tasks.FRAMES[:1], 4 * args.contexts, report)
        first = fidelity(model, tok, text, length, args.windows, True, report)
        fidelity(model, tok, text, length, args.windows, False, report)
    heads(model, tok, text, 1024, first, report)
    whole_text(model, tok, text, 1024, report)
    report.say("%d bounds missed" % report.missed)
    sys.exit(report.missed > 0)


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: Apache-2.0
"""The Llama forward pass in numpy f32: RMS norm, grouped queries, RoPE on neighbouring pairs, SwiGLU."""
import numpy as np

import gguf_file

LAYER = ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output",
         "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(eps)) * weight


def rope(x, positions, theta):
    """x f32 [tokens, heads, head_dim]: pair f = elements 2f, 2f+1 turned by position * theta_f."""
    angle = positions[:, None] * theta[None]
    co, si = np.cos(angle).astype(np.float32)[:, None], np.sin(angle).astype(np.float32)[:, None]
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * co - x[..., 1::2] * si
    out[..., 1::2] = x[..., 0::2] * si + x[..., 1::2] * co
    return out


class Llama:
    """One model: .meta, .tensors (f32), and forward()."""

    def __init__(self, meta, tensors):
        self.meta, self.tensors = meta, tensors
        self.layers = [{n: tensors["blk.%d.%s.weight" % (i, n)] for n in LAYER}
                       for i in range(meta["llama.block_count"])]
        self.embedding, self.final_norm = tensors["token_embd.weight"], tensors["output_norm.weight"]
        self.output = tensors.get("output.weight", self.embedding)
        self.heads, self.kv_heads = meta["llama.attention.head_count"], meta["llama.attention.head_count_kv"]
        self.head_dim = meta["llama.attention.key_length"]
        self.eps = meta["llama.attention.layer_norm_rms_epsilon"]
        half = self.head_dim // 2
        self.theta = float(meta["llama.rope.freq_base"]) ** (-np.arange(half) / half)

    @staticmethod
    def load(path):
        return Llama(*gguf_file.read(path))

    def states(self, ids):
        """What each norm sees, f32 [tokens, width]: before every attention and feed-forward, and last."""
        return self.forward(ids, want_states=True)[3]

    def forward(self, ids, cache=None, keep=None, want_probs=False, want_states=False):
        """Logits [tokens, vocabulary], the new cache and, on request, attention [layer][head][tokens, entries].

        cache: per layer (k, v) f32 [entries, kv_heads, head_dim], positions 0, 1, ...; keep: per layer
        bool [kv_heads, entries], False = evicted.  New tokens see each other causally and all kept entries.
        want_states adds a fourth value, see states().
        """
        n, old = len(ids), 0 if cache is None else cache[0][0].shape[0]
        positions = np.arange(old, old + n, dtype=np.float64)
        group = self.heads // self.kv_heads
        x = self.embedding[np.asarray(ids)]
        causal = np.where(np.arange(old + n)[None] > positions[:, None], np.float32(-np.inf), np.float32(0))
        new_cache, probs, states = [], [], []
        for i, w in enumerate(self.layers):
            states.append(x)
            h = rms_norm(x, w["attn_norm"], self.eps)
            q = rope((h @ w["attn_q"].T).reshape(n, self.heads, self.head_dim), positions, self.theta)
            k = rope((h @ w["attn_k"].T).reshape(n, self.kv_heads, self.head_dim), positions, self.theta)
            v = (h @ w["attn_v"].T).reshape(n, self.kv_heads, self.head_dim)
            if cache is not None:
                k, v = np.concatenate([cache[i][0], k]), np.concatenate([cache[i][1], v])
            new_cache.append((k, v))
            out, layer_probs = np.empty((n, self.heads, self.head_dim), np.float32), []
            for head in range(self.heads):
                kv = head // group
                s = q[:, head] @ k[:, kv].T / np.float32(np.sqrt(self.head_dim)) + causal
                if keep is not None:
                    s[:, :old][:, ~keep[i][kv]] = -np.inf
                p = np.exp(s - s.max(1, keepdims=True))
                p /= p.sum(1, keepdims=True)
                out[:, head] = p @ v[:, kv]
                if want_probs:
                    layer_probs.append(p)
            probs.append(layer_probs)
            x = x + out.reshape(n, -1) @ w["attn_output"].T
            states.append(x)
            h = rms_norm(x, w["ffn_norm"], self.eps)
            gate = h @ w["ffn_gate"].T
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w["ffn_up"].T)) @ w["ffn_down"].T
        logits = rms_norm(x, self.final_norm, self.eps) @ self.output.T
        return (logits, new_cache, probs, states + [x]) if want_states else (logits, new_cache, probs)

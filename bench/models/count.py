# SPDX-License-Identifier: Apache-2.0
"""Learns merges.json and statistics.npz from public-domain books; needed only to change them.

    python3 count.py sherlock_holmes.txt alice29.txt

The merges come from the first book; the counts from the first 90 % of every book, so that the rest can test
them.  README.md names the two files, their origin and their sums.
"""
import collections
import json
import os
import re
import sys

import numpy as np

from bpe import Tokenizer, learn_merges

HERE = os.path.dirname(os.path.abspath(__file__))
MERGES, CONTEXTS, VOCAB = 752, 512, 1024


def flat(text):
    """Paragraphs on one line each, single blanks, one kind of single quote."""
    paragraphs = (" ".join(p.split()) for p in re.split(r"\n[ \t]*\n", text.replace("`", "'")))
    return "\n\n".join(p for p in paragraphs if p)


def main():
    books = [flat(open(path, encoding="utf-8").read()) for path in sys.argv[1:]]
    merges = learn_merges(books[0], MERGES)
    with open(os.path.join(HERE, "merges.json"), "w", encoding="utf-8") as f:
        json.dump(merges, f, separators=(",", ":"))
    tok = Tokenizer(merges)
    pairs, triples = collections.Counter(), collections.Counter()
    for book in books:
        ids = tok.encode(book)
        ids = ids[:len(ids) * 9 // 10]
        pairs.update(zip(ids, ids[1:]))
        triples.update(zip(ids, ids[1:], ids[2:]))
    # The two-token contexts of which the table of pairs knows least: the largest sum of n log(p / p_pair).
    left = collections.Counter()
    for (a, _), n in pairs.items():
        left[a] += n
    gain = collections.Counter()
    for (a, b, c), n in triples.items():
        gain[a, b] += n * np.log((n - 0.5) / pairs[a, b] / (pairs[b, c] / left[b]))
    contexts = sorted(sorted(gain, key=lambda p: (-gain[p], p))[:CONTEXTS])
    place = {p: i for i, p in enumerate(contexts)}
    pair_rows = np.array(sorted((a, b, n) for (a, b), n in pairs.items()), np.uint16)
    triple_rows = np.array(sorted((place[a, b], c, n) for (a, b, c), n in triples.items() if (a, b) in place),
                           np.uint16)
    np.savez_compressed(os.path.join(HERE, "statistics.npz"), pairs=pair_rows,
                        contexts=np.array(contexts, np.uint16), triples=triple_rows)
    print(len(pair_rows), "pairs,", len(triple_rows), "triples in", len(contexts), "contexts;",
          sum(pairs.values()), "tokens;", triple_rows[:, 2].sum(), "of them in a context")


if __name__ == "__main__":
    main()

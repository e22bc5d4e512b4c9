# SPDX-License-Identifier: Apache-2.0
"""The retrieval tasks facts8 and passkey, and the cutting of a text into sentences."""
import re

WORDS = """apple river table orange garden window bottle silver candle basket bridge button camera carpet
castle cherry circle copper cotton curtain desert dragon engine feather finger forest hammer helmet
island jacket kitchen ladder lemon letter marble market mirror monkey mountain needle ocean orchard paper
pencil pepper piano pillow planet pocket potato rabbit ribbon rocket saddle sailor salmon school shadow
shirt spider spoon station stone sugar temple thunder tiger tower tractor trumpet tunnel turtle valley
velvet violin wagon walnut whale wheel winter yellow zebra""".split()
NAMES = """Mary John Alice Peter Susan David Laura Kevin Sarah Brian Emma Oscar Julia Frank Helen Simon
Linda Victor Diana Martin Rachel Bruce Karen Jason Maria Philip Nancy Steven Clara Henry Grace Daniel
Sophie Walter Anna Thomas Jane Robert Lucy George Elizabeth Paul Kate Mark Rose Adam Eric Leo Tom Emily
Jack Lisa Ben Michelle Ryan Amy Jessica Alex Carol Matthew Samuel Patrick Anthony Andrew Joseph Edward
Charles Michael William""".split()
CITIES = """Paris London Berlin Madrid Rome Vienna Prague Tokyo Moscow Cairo Boston Chicago Dallas Denver
Seattle Toronto Sydney Dublin Athens Lisbon Mumbai Delhi Beijing Shanghai Houston Miami Oxford Cambridge
Venice Florence Munich Hamburg Zurich Geneva Amsterdam Brussels Stockholm Oslo Helsinki Warsaw Budapest
Istanbul Jerusalem Baghdad Montreal Vancouver Melbourne Singapore Manila Lima Havana""".split()

# name, line up to the payload, question, kind of payload
FRAMES = [
    ("passkey", "The pass key is", "What is the pass key?", "digits5"),
    ("number", "The special number is", "What is the special number?", "digits5"),
    ("room", "The number of the hotel room is", "What is the number of the hotel room?", "digits4"),
    ("secret", "The secret word is", "What is the secret word?", "word"),
    ("boat", "The name of the boat is", "What is the name of the boat?", "boat"),
    ("sailor", "The old sailor was born in", "Where was the old sailor born?", "city"),
    ("teacher", "The best friend of the teacher is called", "What is the best friend of the teacher called?",
     "name"),
    ("cellar", "The key of the cellar is hidden under the", "Where is the key of the cellar hidden?", "word"),
]


def sentences(text):
    """Sentences of all paragraphs of more than 40 characters, cut after . ! ? or a closing quote."""
    out = []
    for paragraph in re.split(r"\n[ \t]*\n", text):
        paragraph = " ".join(paragraph.split())
        if len(paragraph) > 40:
            out += re.split(r'(?<=[.!?"]) (?=[A-Z"])', paragraph)
    return out


def payload(kind, rng):
    """One random payload; digits start with no 0, five digits of a pass key all differ."""
    if kind.startswith("digits"):
        while True:
            d = rng.permutation(10)[:int(kind[6:])]
            if d[0]:
                return "".join(map(str, d))
    if kind == "boat":
        c, v = "bdfgklmnprstvz", "aeiou"
        return "".join(s[rng.integers(len(s))] for s in (c, v, c, v, c)).capitalize()
    pool = {"word": WORDS, "city": CITIES, "name": NAMES}[kind]
    return pool[rng.integers(len(pool))]


def context(tok, story, length, frames, rng):
    """Ids of `length` tokens at most and [(question ids, answer ids, (first, last + 1) entry of the line)].

    Start token, consecutive sentences from a random place, the line of frame i on a line of its own at the
    sentence border nearest to depth (i + u) / len(frames), the frames in random order.
    """
    order = [frames[i] for i in rng.permutation(len(frames))]
    values = []
    while len(values) < len(order):
        v = payload(order[len(values)][3], rng)
        if v not in values:
            values.append(v)
    lines = ["\n%s %s.\n" % (f[1], v) for f, v in zip(order, values)]
    need = sum(len(tok.encode(line)) for line in lines)
    start, chosen, used = int(rng.integers(len(story) // 2)), [], 1 + need
    for s in story[start:]:
        size = len(tok.encode(" " + s))
        if used + size > length:
            break
        chosen.append(s)
        used += size
    borders = [0]
    for s in chosen:
        borders.append(borders[-1] + len(tok.encode(" " + s)))
    depths = [(i + rng.random()) / len(lines) * borders[-1] for i in range(len(lines))]
    at = [min(range(len(borders)), key=lambda b: abs(borders[b] - depth)) for depth in depths]
    ids, spans = [0], []
    for b in range(len(chosen) + 1):
        for i, line in enumerate(lines):
            if at[i] == b:
                part = tok.encode(line)
                spans.append((i, len(ids), len(ids) + len(part)))
                ids += part
        if b < len(chosen):
            after_line = any(at[i] == b for i in range(len(lines))) or b == 0
            ids += tok.encode(chosen[b] if after_line else " " + chosen[b])
    asked = []
    for i, first, last in spans:
        frame, value = order[i], values[i]
        ask, answer = "\n\nQuestion: %s\nAnswer: %s" % (frame[2], frame[1]), tok.encode(" " + value)
        ask_ids = tok.encode(ask)
        if frame[3].startswith("digits"):  # the blank before a number belongs to the prompt
            ask_ids, answer = ask_ids + answer[:1], answer[1:]
        asked.append((ask_ids, answer, (first, last), frame[0]))
    return ids, asked

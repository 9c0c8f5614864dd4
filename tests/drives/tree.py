#!/usr/bin/env python3
"""Trees of files with names that clients stumble over, and their checksums.

    tree.py make FOLDER COUNT [WITHOUT]    makes that many files, in folders of their own; the same each
                                 time. Names that hold one of the characters WITHOUT are left out
    tree.py sums FOLDER          prints checksum and name of each file, in the order of the names
"""

import hashlib
import os
import sys
import unicodedata

NAMES = [
    "plain", "with a blank", "two  blanks", "100%", "%41 is no A", "a%2Fb", "no#fragment", "what?", "a+b&c=d;e,f",
    "it's", "[brackets]{braces}", "~tilde", "dots..in.it", "(1)", "UPPER and lower",
    "\u00fcml\u00e4\u00fct \u00df", unicodedata.normalize("NFD", "\u00fc in two parts"), "\u6f22\u5b57 \u304b\u306a",
    "\U0001f600 emoji \U0001f468\u200d\U0001f469\u200d\U0001f467", "\u0440\u0443\u0441\u0441\u043a\u0438\u0439",
    "\u05e2\u05d1\u05e8\u05d9\u05ea", "n" * 200, "\u6f22" * 66 + "ab",
]


def content(number):
    seed = hashlib.sha256(str(number).encode()).digest()
    return seed * (number * 7 % 600)


def make(folder, count, without=""):
    names = [name for name in NAMES if not set(name) & set(without)]
    for number in range(count):
        name = names[number % len(names)]
        round_number = number // len(names)
        # Of each round one folder lies in the one before it, so that the tree has some depth.
        parts = [f"{names[(round_number * 5) % 20]} {level}" for level in range(round_number % 4)]
        place = os.path.join(folder, f"round {round_number}", *parts)
        os.makedirs(place, exist_ok=True)
        with open(os.path.join(place, name), "wb") as file:
            file.write(content(number))


def sums(folder):
    lines = []
    root = os.fsencode(folder)
    for place, _, names in os.walk(root):
        for name in names:
            # What the server keeps of locks and properties.
            if name == b".mongoose-dav":
                continue
            path = os.path.join(place, name)
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while piece := file.read(1 << 20):
                    digest.update(piece)
            lines.append((os.path.relpath(path, root), digest.hexdigest()))
    for path, digest in sorted(lines):
        print(digest, ascii(os.fsdecode(path)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", folder, count, *without]:
            make(folder, int(count), *without)
        case ["sums", folder]:
            sums(folder)
        case _:
            sys.exit(__doc__)

#!/usr/bin/env python3
"""The entries of the guest book as items of a list, the latest first."""
import html
import pathlib

print("Content-Type: text/html; charset=utf-8\n")
book = pathlib.Path("entries.txt")
if book.exists():
    for line in reversed(book.read_text("utf-8").splitlines()[-50:]):
        print(f"<li>{html.escape(line)}")

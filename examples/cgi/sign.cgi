#!/usr/bin/env python3
"""Takes an entry, and sends the browser back to the page."""
import os
import sys
import urllib.parse

body = sys.stdin.buffer.read(min(int(os.environ.get("CONTENT_LENGTH", 0)), 4096)).decode("ascii", "replace")
text = urllib.parse.parse_qs(body).get("text", [""])[0]
line = " ".join(text.split())[:200]
if os.environ["REQUEST_METHOD"] != "POST" or not line:
    print("Status: 400 Bad Request\nContent-Type: text/plain\n\nNo text.")
else:
    with open("entries.txt", "a", encoding="utf-8") as book:
        book.write(line + "\n")
    print("Status: 303 See Other\nLocation: ./\n")

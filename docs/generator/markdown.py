"""Reads the Markdown of this repository: what its pages use, and nothing else.

A text becomes a list of blocks, and a line of text a list of spans. Both are tuples whose first
member is the kind:

    ('heading', level, spans)       ('paragraph', spans)        ('code', language, text)
    ('list', ordered, [blocks])     ('table', [spans], [[spans]])

    ('text', text)  ('code', text)  ('strong', spans)  ('emphasis', spans)  ('link', spans, target)

What is not understood is an error, so that no page loses a part of itself without a word.
"""

import re

FENCE = re.compile(r'```(\w*)\s*$')
ITEM = re.compile(r'(?:([-*])|(\d+)\.)( +)')
COMMENT = re.compile(r'<!--.*?-->', re.S)


def blocks(text):
    """The blocks of a text. HTML comments are for tests and tools: they are left out."""
    lines = _without_comments(text).expandtabs(4).split('\n')
    found = []
    at = 0
    while at < len(lines):
        at = _block(lines, at, found)
    return found


def _without_comments(text):
    """Leaves comments out where they stand on lines of their own, outside of code."""
    kept, fenced = [], False
    for line in text.split('\n'):
        if FENCE.match(line.strip()):
            fenced = not fenced
        if not fenced and COMMENT.fullmatch(line.strip()):
            continue
        kept.append(line)
    return '\n'.join(kept)


def _block(lines, at, found):
    """Reads one block that begins at a line, and returns where the next one begins."""
    line = lines[at]
    if not line.strip():
        return at + 1
    if FENCE.match(line):
        return _fence(lines, at, found)
    if line.startswith('    '):
        return _indented(lines, at, found)
    if line.startswith('#'):
        marks = len(line) - len(line.lstrip('#'))
        found.append(('heading', marks, spans(line[marks:].strip())))
        return at + 1
    if line.startswith('|'):
        return _table(lines, at, found)
    if ITEM.match(line):
        return _list(lines, at, found)
    end = at + 1
    while end < len(lines) and lines[end].strip() and not _begins(lines[end]):
        end += 1
    found.append(('paragraph', spans(' '.join(part.strip() for part in lines[at:end]))))
    return end


def _begins(line):
    return line.startswith(('#', '|', '```')) or re.match(r'[-*] ', line)


def _fence(lines, at, found):
    language = FENCE.match(lines[at]).group(1)
    end = at + 1
    while not lines[end].startswith('```'):
        end += 1
    found.append(('code', language, '\n'.join(lines[at + 1:end])))
    return end + 1


def _indented(lines, at, found):
    end = at
    while end < len(lines) and (lines[end].startswith('    ') or not lines[end].strip()):
        end += 1
    text = '\n'.join(line[4:] for line in lines[at:end]).rstrip()
    found.append(('code', '', text))
    return end


def _list(lines, at, found):
    """A list; a line that is indented as the text of its item belongs to it."""
    ordered = ITEM.match(lines[at]).group(2) is not None
    items = []
    while at < len(lines):
        mark = ITEM.match(lines[at])
        if not mark or (mark.group(2) is not None) != ordered:
            break
        indent = len(mark.group(0))
        item = [lines[at][indent:]]
        at += 1
        while at < len(lines):
            line = lines[at]
            follows = next((next_line for next_line in lines[at:] if next_line.strip()), '')
            if line.strip() and not line.startswith(' '):
                break
            if not line.strip() and not follows.startswith(' ' * indent):
                break
            item.append(line[min(indent, len(line) - len(line.lstrip())):])
            at += 1
        items.append(blocks('\n'.join(item)))
        # A blank line between two items does not end their list.
        if lines[at:at + 1] == [''] and ITEM.match(''.join(lines[at + 1:at + 2])):
            at += 1
    found.append(('list', ordered, items))
    return at


def _table(lines, at, found):
    rows = []
    while at < len(lines) and lines[at].startswith('|'):
        cells = re.split(r'(?<!\\)\|', lines[at].strip().strip('|'))
        rows.append([cell.strip().replace('\\|', '|') for cell in cells])
        at += 1
    if len(rows) < 2 or not all(re.fullmatch(r':?-+:?', cell) for cell in rows[1]):
        raise ValueError('a table without a line below its head: %r' % rows[0])
    head = [spans(cell) for cell in rows[0]]
    body = []
    for row in rows[2:]:
        if len(row) != len(head):
            raise ValueError('a row with %d cells in place of %d: %r' % (len(row), len(head), row))
        body.append([spans(cell) for cell in row])
    found.append(('table', head, body))
    return at


SPAN = re.compile(r'''
    (?P<code>`[^`]+`)
  | !\[[^\]]*\]\([^)]*\) (?P<image>)
  | \[(?P<text>(?:[^\[\]`]|`[^`]*`)+)\]\((?P<target>[^)\s]+)\)
  | \*\*(?P<strong>[^*]+)\*\*
  | (?<![\w*])\*(?P<emphasis>[^*\s][^*]*)\*(?!\w)
  | <(?P<address>https?://[^>]+)>
''', re.X)


def spans(text):
    """The spans of a text without its line breaks."""
    found = []
    at = 0
    for match in SPAN.finditer(text):
        if match.start() > at:
            found.append(('text', text[at:match.start()]))
        at = match.end()
        if match.group('code'):
            found.append(('code', match.group('code')[1:-1]))
        elif match.group('image') is not None:
            raise ValueError('a picture, which the manual has no place for: ' + match.group(0))
        elif match.group('text'):
            found.append(('link', spans(match.group('text')), match.group('target')))
        elif match.group('strong'):
            found.append(('strong', spans(match.group('strong'))))
        elif match.group('emphasis'):
            found.append(('emphasis', spans(match.group('emphasis'))))
        else:
            address = match.group('address')
            found.append(('link', [('text', address)], address))
    if at < len(text):
        found.append(('text', text[at:]))
    return found


def plain(line):
    """The text of spans, without what they are marked with."""
    parts = []
    for span in line:
        parts.append(span[1] if span[0] in ('text', 'code') else plain(span[1]))
    return ''.join(parts)


def anchor(line):
    """The name by which a heading is linked to, made as forges make it."""
    kept = re.sub(r'[^\w\- ]', '', plain(line).lower())
    return kept.replace(' ', '-')

"""Reads include/mongoose.h: its functions, structures and types, each with its comment."""

import re
from collections import namedtuple

from . import markdown

# `brief` is a line for lists, `blocks` the comment, as `markdown` gives it.
Function = namedtuple('Function', 'name prototype brief blocks')
Type = namedtuple('Type', 'name declaration blocks members')
Member = namedtuple('Member', 'declaration blocks')

DOCUMENTED = re.compile(r'^/\*\*(?P<comment>.*?)\*/\n(?P<what>.*?;)$(?=\n)', re.M | re.S)


def read(text):
    """Returns the functions and the types of a header, in its order."""
    functions, types = [], []
    at = 0
    while True:
        match = DOCUMENTED.search(text, at)
        if not match:
            break
        what, comment = match.group('what'), comment_blocks(match.group('comment'))
        if what.startswith('struct') and what.split('\n')[0].endswith('{'):
            end = text.index('\n};', match.start('what')) + 3
            declaration = text[match.start('what'):end]
            at = end
            types.append(_structure(declaration, comment))
            continue
        at = match.end()
        name = re.search(r'\bmg_\w+', what).group(0)
        if what.startswith(('typedef', 'struct mg_server;')):
            name = re.search(r'\(\*(\w+)\)|struct (\w+);', what)
            types.append(Type(name.group(1) or name.group(2), what, comment, []))
            continue
        prototype = re.sub(r'\s+', ' ', re.sub(r' MONGOOSE_\w+;', ';', what))
        name = re.search(r'(mg_\w+)\(', prototype).group(1)
        functions.append(Function(name, prototype, brief(comment), comment))
    missing = set(re.findall(r'^[^ *#].*?\b(mg_\w+)\(', text, re.M)) - {f.name for f in functions}
    missing -= {name for name in missing if re.search(r'\(\*' + name, text)}
    if missing:
        raise ValueError('functions without a comment: ' + ', '.join(sorted(missing)))
    return functions, types


def comment_blocks(comment):
    lines = [re.sub(r'^\s*\* ?', '', line) for line in comment.strip('\n').split('\n')]
    return markdown.blocks('\n'.join(lines).strip())


def brief(blocks):
    """The first sentence of a comment, as far as its first colon, as a line in a list begins."""
    text = markdown.plain(blocks[0][1])
    text = re.split(r'[.:;](?=\s|$)', text)[0]
    text = re.sub(r'\s*\([^)]*\)', '', text)
    return text[0].lower() + text[1:]


def _structure(declaration, comment):
    """A structure, its members with the comments inside."""
    head, body = declaration.split('{\n', 1)
    name = head.split()[1]
    members = []
    pattern = re.compile(r'^  /\*\*(?P<comment>.*?)\*/\n(?P<what>  .*?;)$(?=\n  /\*\*|\n\};)', re.M | re.S)
    for match in pattern.finditer(body.rstrip() if not body.endswith('};') else body):
        what = re.sub(r'^  ', '', match.group('what'), flags=re.M)
        members.append(Member(what, comment_blocks(match.group('comment'))))
    plain = re.sub(r'\n *\n', '\n', re.sub(r'^ *(/\*\*.*?\*/)\n', '', declaration, flags=re.M | re.S))
    return Type(name, plain, comment, members)


def wrapped(prototype, width=76):
    """A prototype on lines of at most `width` characters, broken behind commas."""
    if len(prototype) <= width:
        return prototype
    start = prototype.index('(') + 1
    parts = _arguments(prototype[start:-2])
    lines, line = [], prototype[:start]
    indent = ' ' * (start if start < 36 else 4)
    for index, part in enumerate(parts):
        piece = part + (', ' if index + 1 < len(parts) else ');')
        if len((line + piece).rstrip()) > width and line.strip():
            lines.append(line.rstrip())
            line = indent
        line += piece
    return '\n'.join(lines + [line.rstrip()])


def _arguments(text):
    parts, depth, part = [], 0, ''
    for letter in text:
        depth += (letter == '(') - (letter == ')')
        if letter == ',' and depth == 0:
            parts.append(part.strip())
            part = ''
        else:
            part += letter
    return parts + [part.strip()]

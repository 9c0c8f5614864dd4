"""Writes the manual as one HTML file that needs nothing else: no network, no script."""

import html
import os
import re

from . import header, markdown
from .manual import is_of_options


def page(manual):
    """The whole file."""
    return _Page(manual).text()


class _Page:
    def __init__(self, manual):
        self.manual = manual
        self.source = None
        self.prefix = ''
        self.ids = set()
        with open(os.path.join(os.path.dirname(__file__), 'style.css'), encoding='utf-8') as file:
            self.style = file.read()

    def text(self):
        start, *chapters = self.manual.chapters
        parts = [self.chapter(start), self.reference(), *map(self.chapter, chapters)]
        body = '\n'.join(parts)
        return TEMPLATE % {
            'version': html.escape(self.manual.version),
            'style': self.style,
            'contents': self.contents(start, chapters),
            'body': body,
        }

    # The table of contents.

    def contents(self, start, chapters):
        lines = ['<ol>', self.entry(start), self.reference_entry()]
        lines += [self.entry(chapter) for chapter in chapters]
        return '\n'.join(lines + ['</ol>'])

    def entry(self, chapter):
        below = ''.join(
            '<li><a href="#%s-%s">%s</a></li>' % (
                chapter.name, markdown.anchor(block[2]), html.escape(markdown.plain(block[2])))
            for block in chapter.blocks if block[0] == 'heading' and block[1] == 2)
        below = '<ol>%s</ol>' % below if below else ''
        return '<li><a href="#%s">%s</a>%s</li>' % (chapter.name, html.escape(chapter.title), below)

    def reference_entry(self):
        names = [kind.name for kind in self.manual.types]
        names += [function.name for function in self.manual.functions]
        below = ''.join('<li><a href="#%s"><code>%s</code></a></li>' % (name, name) for name in names)
        return '<li><a href="#functions">Types and functions</a><ol>%s</ol></li>' % below

    # Chapters.

    def chapter(self, chapter):
        self.source, self.prefix = chapter.path, chapter.name + '-'
        title = '<h2 id="%s">%s</h2>' % (self.id(chapter.name), html.escape(chapter.title))
        return '<section>\n%s\n%s\n</section>' % (title, self.blocks(chapter.blocks))

    def reference(self):
        self.source, self.prefix = 'include/mongoose.h', 'functions-'
        parts = ['<section>', '<h2 id="%s">Types and functions</h2>' % self.id('functions')]
        parts.append('<dl class="list">')
        for function in self.manual.functions:
            parts.append('<dt><a href="#%s"><code>%s</code></a></dt><dd>%s</dd>' % (
                function.name, function.name, html.escape(function.brief)))
        parts.append('</dl>')
        for kind in self.manual.types:
            parts.append(self.named(kind.name, kind.declaration, kind.blocks))
            if kind.members:
                parts.append('<dl>')
                for member in kind.members:
                    parts.append('<dt><code>%s</code></dt><dd>%s</dd>' % (
                        html.escape(' '.join(member.declaration.split())), self.blocks(member.blocks)))
                parts.append('</dl>')
        for function in self.manual.functions:
            prototype = header.wrapped(function.prototype)
            parts.append(self.named(function.name, prototype, function.blocks))
        return '\n'.join(parts + ['</section>'])

    def named(self, name, declaration, blocks):
        return '<h3 id="%s"><code>%s</code></h3>\n<pre><code>%s</code></pre>\n%s' % (
            self.id(name), name, html.escape(declaration), self.blocks(blocks))

    def id(self, name):
        if name in self.ids:
            raise ValueError('two places are called ' + name)
        self.ids.add(name)
        return name

    # Blocks and spans.

    def blocks(self, blocks):
        return '\n'.join(self.block(block) for block in blocks)

    def block(self, block):
        kind = block[0]
        if kind == 'heading':
            level = block[1] + 1
            name = self.id(self.prefix + markdown.anchor(block[2]))
            return '<h%d id="%s">%s</h%d>' % (level, name, self.spans(block[2]), level)
        if kind == 'paragraph':
            return '<p>%s</p>' % self.spans(block[1])
        if kind == 'code':
            return '<pre><code>%s</code></pre>' % html.escape(block[2])
        if kind == 'list':
            items = ''.join('<li>%s</li>\n' % self.item(item) for item in block[2])
            return '<%s>\n%s</%s>' % (('ol', items, 'ol') if block[1] else ('ul', items, 'ul'))
        return self.options(block[2]) if is_of_options(block) else self.table(block[1], block[2])

    def item(self, blocks):
        if len(blocks) == 1 and blocks[0][0] == 'paragraph':
            return self.spans(blocks[0][1])
        return self.blocks(blocks)

    def options(self, rows):
        """Options as a list: three columns have no room on a phone."""
        lines = ['<dl>']
        for name, default, text in rows:
            plain = markdown.plain(name)
            shown = ' <span class="default">%s</span>' % self.spans(default) if default else ''
            lines.append('<dt id="%s"><code>%s</code>%s</dt><dd>%s</dd>' % (
                self.id('option-' + plain), html.escape(plain), shown, self.spans(text)))
        return '\n'.join(lines + ['</dl>'])

    def table(self, head, rows):
        titles = ''.join('<th>%s</th>' % self.spans(cell) for cell in head)
        lines = ['<div class="wide"><table>']
        if any(head):
            lines.append('<thead><tr>%s</tr></thead>' % titles)
        for row in rows:
            lines.append('<tr>%s</tr>' % ''.join('<td>%s</td>' % self.spans(cell) for cell in row))
        return '\n'.join(lines + ['</table></div>'])

    def spans(self, spans, linked=False):
        return ''.join(self.span(span, linked) for span in spans)

    def span(self, span, linked):
        """`linked`: inside of a link, where no other can begin."""
        kind = span[0]
        if kind == 'text':
            text = html.escape(span[1], quote=False)
            return text if linked else re.sub(r'\b(mg_\w+)(\(\))?', self.name, text)
        if kind == 'code':
            return self.code(span[1], linked)
        if kind in ('strong', 'emphasis'):
            mark = 'strong' if kind == 'strong' else 'em'
            return '<%s>%s</%s>' % (mark, self.spans(span[1], linked), mark)
        return self.link(span)

    def name(self, match):
        name = match.group(1)
        shown = '<code>%s</code>' % match.group(0)
        known = name in self.manual.function_names or name in self.manual.type_names
        return '<a href="#%s">%s</a>' % (name, shown) if known else shown

    def code(self, text, linked):
        shown = '<code>%s</code>' % html.escape(text, quote=False)
        if linked:
            return shown
        name = re.match(r'(?:struct )?(mg_\w+)\b', text)
        if name and (name.group(1) in self.manual.function_names or name.group(1) in self.manual.type_names):
            return '<a href="#%s">%s</a>' % (name.group(1), shown)
        if text in self.manual.options:
            return '<a href="#option-%s">%s</a>' % (text, shown)
        return shown

    def link(self, span):
        found = self.manual.resolve(self.source, span[2])
        shown = self.spans(span[1], linked=True)
        if found[0] == 'url':
            return '<a href="%s">%s</a>' % (html.escape(found[1]), shown)
        if found[0] == 'file':
            # Beside the installed manual there are no sources.
            path = '<code>%s</code>' % html.escape(found[1])
            plain = markdown.plain(span[1])
            return path if found[1].endswith(plain) else '%s (%s)' % (shown, path)
        chapter, fragment = found[1], found[2]
        name = chapter.name + ('-' + fragment if fragment else '')
        if markdown.plain(span[1]).endswith('.md'):
            shown = '“%s”' % html.escape(chapter.title)
        return '<a href="#%s">%s</a>' % (name, shown)


TEMPLATE = '''<!doctype html>
<!-- Made by docs/generate from include/mongoose.h and the pages of docs: changes here get lost. -->
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>mongoose %(version)s: the manual</title>
<style>
%(style)s</style>
</head>
<body>
<header>
<h1>mongoose %(version)s</h1>
<p>An embedded web server for C and C++ programs. All of the manual is on this page: the search of the browser
finds everything, also off line.</p>
</header>
<nav aria-label="Contents">
<details open>
<summary>Contents</summary>
%(contents)s
</details>
</nav>
<main>
%(body)s
</main>
</body>
</html>
'''

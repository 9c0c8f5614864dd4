"""Writes man pages, by the macros `man` alone, which man-db, mandoc and others know."""

import re

from . import header, markdown
from .manual import is_of_options

THREADS = re.compile(r'(To be called|Any thread may|May be called from)')


def pages(manual):
    """The man pages, as a dictionary of file names and texts."""
    made = {'libmongoose.3': _Page(manual, 'libmongoose', 3).library()}
    for function in manual.functions:
        made[function.name + '.3'] = _Page(manual, function.name, 3).function(function)
    made['mongoose.conf.5'] = _Page(manual, 'mongoose.conf', 5).configuration()
    if manual.chapter('program'):
        made['mongoose.1'] = _Page(manual, 'mongoose', 1).program()
    return made


class _Page:
    """One page. `source` is the file that its blocks come from, for their links."""

    def __init__(self, manual, name, section):
        self.manual, self.name, self.section = manual, name, section
        self.source = 'include/mongoose.h'
        self.lines = [
            '.\\" Made by docs/generate from include/mongoose.h and the pages of docs: changes here get lost.',
            '.TH "%s" "%d" "" "mongoose %s" "%s"' % (
                name, section, manual.version,
                {1: 'Commands', 3: 'Functions of libmongoose', 5: 'Files'}[section]),
        ]

    # The pages.

    def function(self, function):
        self.name_section(function.brief)
        self.synopsis([header.wrapped(function.prototype)])
        parts = {'DESCRIPTION': [], 'RETURN VALUE': [], 'THREADS': []}
        for block in function.blocks:
            text = markdown.plain(block[1]) if block[0] == 'paragraph' else ''
            if text.startswith('Returns '):
                parts['RETURN VALUE'].append(block)
            elif THREADS.match(text):
                parts['THREADS'].append(block)
            else:
                parts['DESCRIPTION'].append(block)
        # A function of one paragraph says all in it.
        if not parts['DESCRIPTION']:
            parts = {'DESCRIPTION': function.blocks}
        for title, blocks in parts.items():
            if blocks:
                self.head(title)
                self.blocks(blocks)
        text = ' '.join(markdown.plain(block[1]) for block in function.blocks if block[0] == 'paragraph')
        named = [name for name in re.findall(r'\bmg_\w+', text)
                 if name in self.manual.function_names and name != function.name]
        self.see_also(['libmongoose(3)'] + sorted({name + '(3)' for name in named}))
        return self.text()

    def library(self):
        manual = self.manual
        self.name_section('an embedded web server')
        self.synopsis([])
        start = manual.chapter('start')
        self.source = start.path
        before = [block for block in start.blocks if block[0] != 'heading']
        first = start.blocks.index(next(b for b in start.blocks if b[0] == 'heading'))
        self.head('DESCRIPTION')
        self.blocks(start.blocks[:first])
        example = next(block for block in before if block[0] == 'code' and block[1] == 'c')
        self.source = 'include/mongoose.h'
        self.head('FUNCTIONS')
        for function in manual.functions:
            self.tag('\\fB%s\\fR(3)' % function.name)
            self.line(escape(function.brief))
        self.head('TYPES')
        for kind in manual.types:
            self.sub('struct ' + kind.name if kind.declaration.startswith('struct') else kind.name)
            self.blocks(kind.blocks)
            if not kind.members:
                self.code(kind.declaration)
            for member in kind.members:
                self.member(member)
        self.head('OPTIONS')
        self.line('The options of \\fBmg_set_option\\fR(3) are those of \\fBmongoose.conf\\fR(5).')
        self.head('EXAMPLES')
        self.code(example[2])
        self.see_also(['mongoose(1)', 'mongoose.conf(5)'] + [f.name + '(3)' for f in manual.functions[:5]])
        return self.text()

    def member(self, member):
        lines = member.declaration.split('\n')
        self.tag('\\fB%s\\fR' % escape(' '.join(line.strip() for line in lines)))
        self.blocks(member.blocks, inner=True)

    def program(self):
        chapter = self.manual.chapter('program')
        self.source = chapter.path
        self.name_section('shares a directory on the web')
        self.head('SYNOPSIS')
        for command in ('[\\fIOPTION\\fR]... [\\fIDIRECTORY\\fR]', '\\-A \\fIFILE REALM USER\\fR [\\fIPASSWORD\\fR]'):
            self.lines += ['.PP', '\\fBmongoose\\fR ' + command]
        self.head('DESCRIPTION')
        self.blocks(chapter.blocks)
        self.see_also(['mongoose.conf(5)', 'libmongoose(3)'])
        return self.text()

    def configuration(self):
        chapter = self.manual.chapter('options')
        self.source = chapter.path
        self.name_section('options of mongoose(1) and of libmongoose(3)')
        self.head('DESCRIPTION')
        if self.manual.chapter('program'):
            self.source = 'docs/program.md'
            self.blocks(_section(self.manual.chapter('program').blocks, 'The configuration file'))
            self.source = chapter.path
            self.head('OPTIONS')
            self.line('Beside those of \\fBmongoose\\fR(1) itself, the file knows the options of the library.')
        self.blocks(chapter.blocks)
        self.see_also(['mongoose(1)', 'libmongoose(3)', 'mg_set_option(3)'])
        return self.text()

    # Their sections.

    def name_section(self, brief):
        self.head('NAME')
        self.line('%s \\- %s' % (escape(self.name), escape(brief)))

    def synopsis(self, prototypes):
        self.head('SYNOPSIS')
        self.lines.append('.nf')
        self.line('\\fB#include <mongoose.h>\\fR')
        for prototype in prototypes:
            self.lines.append('.PP')
            for line in prototype.split('\n'):
                self.line('\\fB%s\\fR' % code_escape(line))
        self.lines += ['.fi', '.PP']
        self.line('Link with \\fI\\-lmongoose\\fR.')

    def see_also(self, names):
        self.head('SEE ALSO')
        found = []
        for name in names:
            title, _, section = name.partition('(')
            if title == 'mongoose' and not self.manual.chapter('program'):
                continue
            found.append('\\fB%s\\fR(%s' % (escape(title), section))
        self.line(',\n'.join(found))

    def head(self, title):
        self.lines.append('.SH "%s"' % title)

    def sub(self, title):
        self.lines.append('.SS "%s"' % escape(title).replace('"', '\\(dq'))

    def tag(self, text):
        self.lines += ['.TP', text]

    def line(self, text):
        """Text, which no line of may begin as a request of roff does."""
        for line in text.split('\n'):
            self.lines.append('\\&' + line if line[:1] in ('.', "'") else line)

    def code(self, text):
        self.lines += ['.PP', '.RS 4', '.nf']
        self.line('\n'.join(code_escape(line) for line in text.split('\n')))
        self.lines += ['.fi', '.RE', '.PP']

    # Blocks and spans.

    def blocks(self, blocks, inner=False):
        """`inner`: below a tag or a bullet, whose text is indented."""
        first = True
        for block in blocks:
            kind = block[0]
            if kind == 'heading':
                if block[1] == 2:
                    self.head(escape(markdown.plain(block[2]).upper()).replace('"', '\\(dq'))
                else:
                    self.sub(markdown.plain(block[2]))
            elif kind == 'paragraph':
                if not first or not inner:
                    self.lines.append('.IP' if inner else '.PP')
                self.line(self.spans(block[1]))
            elif kind == 'code':
                self.code(block[2])
            elif kind == 'list':
                self.items(block, inner)
            elif is_of_options(block):
                self.options(block[2])
            else:
                self.table(block[1], block[2])
            first = False

    def items(self, block, inner):
        if inner:
            self.lines.append('.RS')
        for number, item in enumerate(block[2], 1):
            self.lines.append('.IP "%d." 4' % number if block[1] else '.IP \\(bu 2')
            self.blocks(item, inner=True)
        if inner:
            self.lines.append('.RE')

    def options(self, rows):
        for name, default, text in rows:
            shown = self.spans(default)
            self.tag('%s%s' % (self.spans(name), ' (default: %s)' % shown if shown else ''))
            self.line(self.spans(text))

    def table(self, head, rows):
        """A table as a list: what terminals have no room for side by side."""
        titles = [self.spans(cell) for cell in head]
        for row in rows:
            cells = [self.spans(cell) for cell in row]
            self.tag(cells[0] or '\\(em')
            told = [('%s: %s' % (title, cell) if title and len(cells) > 2 else cell)
                    for title, cell in zip(titles[1:], cells[1:]) if cell]
            self.line('\n.br\n'.join(told) if told else '\\&') if len(told) < 2 else self.told(told)

    def told(self, told):
        self.line(told[0])
        for text in told[1:]:
            self.lines.append('.br')
            self.line(text)

    def spans(self, spans):
        return ''.join(self.span(span) for span in spans)

    def span(self, span):
        kind = span[0]
        if kind == 'text':
            return re.sub(r'\b(mg_\w+)(\(\))?', self.function_name, escape(span[1]))
        if kind == 'code':
            return '\\fB%s\\fR' % code_escape(span[1])
        if kind in ('strong', 'emphasis'):
            return '\\f%s%s\\fR' % ('B' if kind == 'strong' else 'I', escape(markdown.plain(span[1])))
        found = self.manual.resolve(self.source, span[2])
        shown = self.spans(span[1])
        if found[0] == 'url':
            return shown if markdown.plain(span[1]) == found[1] else '%s (%s)' % (shown, escape(found[1]))
        if found[0] == 'file':
            return shown
        if markdown.plain(span[1]).endswith('.md'):
            page = {'options': ('mongoose.conf', 5), 'program': ('mongoose', 1)}.get(found[1].name)
            if page and page[0] != self.name:
                return '\\fB%s\\fR(%d)' % page
            return '\\(lq%s\\(rq in the HTML manual' % escape(found[1].title)
        return shown

    def function_name(self, match):
        known = match.group(1) in self.manual.function_names and match.group(1) != self.name
        return '\\fB%s\\fR%s' % (match.group(1), '(3)' if known else match.group(2) or '')

    def text(self):
        return '\n'.join(self.lines) + '\n'


def _section(blocks, title):
    """The blocks below a heading of the second level."""
    found, inside = [], False
    for block in blocks:
        if block[0] == 'heading' and block[1] == 2:
            inside = markdown.plain(block[2]) == title
        elif inside:
            found.append(block)
    if not found:
        raise ValueError('no section "%s"' % title)
    return found


SIGNS = {'\\': '\\e', '…': '\\&...', '→': '\\(->', '×': '\\(mu', '“': '\\(lq', '”': '\\(rq', '–': '\\(en',
         '—': '\\(em', 'µ': '\\(mc', '·': '\\(pc', '^': '\\(ha', '~': '\\(ti', '`': '\\(ga', "'": '\\(cq'}


def escape(text):
    return ''.join(SIGNS.get(sign, sign) for sign in text)


def code_escape(text):
    """Code is copied from man pages: its signs have to be those that are typed."""
    return escape(text).replace('\\(cq', '\\(aq').replace('-', '\\-')

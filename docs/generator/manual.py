"""What the manual is made of: its chapters, the functions and types of the header, the options."""

import os
import re
from collections import namedtuple

from . import header, markdown

# The chapters behind those of the header, in the order in which a reader needs them. Pages of docs that
# are for those who change the library are no part of the manual; a test knows them by name.
CHAPTERS = ['options', 'threads', 'bindings', 'tls', 'proxies', 'webdav', 'uploads', 'scaling', 'migrating', 'hardening',
            'program']
FOR_DEVELOPERS = ['architecture', 'adding', 'cross', 'packaging', 'robustness', 'sizes']

# What the first chapter takes from README.md.
START = ['A program', 'TLS', 'In place of mongoose.c']

Chapter = namedtuple('Chapter', 'name path title blocks')


class Manual:
    """All sources, read. `root` is the folder of the repository."""

    def __init__(self, root):
        self.root = root
        self.version = re.search(r'^version = "(.*)"', self._text('Cargo.toml'), re.M).group(1)
        self.functions, self.types = header.read(self._text('include/mongoose.h'))
        self.chapters = [self._start()]
        for name in CHAPTERS:
            path = 'docs/%s.md' % name
            if os.path.exists(os.path.join(root, path)):
                first, *rest = markdown.blocks(self._text(path))
                self.chapters.append(Chapter(name, path, markdown.plain(first[2]), rest))
        self._check_pages()
        self.options = {}
        for chapter in self.chapters:
            for block in chapter.blocks:
                if is_of_options(block):
                    for name, default, text in block[2]:
                        self.options[markdown.plain(name)] = (chapter.name, default, text)
        self.function_names = {function.name for function in self.functions}
        self.type_names = {kind.name for kind in self.types}

    def _text(self, path):
        with open(os.path.join(self.root, path), encoding='utf-8') as file:
            return file.read()

    def _start(self):
        """The chapter that README.md holds: what comes before its first section, and the named ones."""
        text = self._text('README.md')
        sections = re.split(r'^(?=## )', text, flags=re.M)
        wanted = [sections[0].split('\n', 1)[1]]
        for title in START:
            found = [part for part in sections if part.startswith('## %s\n' % title)]
            if len(found) != 1:
                raise ValueError('README.md has no section "%s"' % title)
            wanted += found
        return Chapter('start', 'README.md', 'What it is', markdown.blocks('\n'.join(wanted)))

    def _check_pages(self):
        """No page of docs is forgotten."""
        known = set(CHAPTERS) | set(FOR_DEVELOPERS)
        for name in os.listdir(os.path.join(self.root, 'docs')):
            if name.endswith('.md') and name[:-3] not in known:
                raise ValueError('docs/%s is in no list of docs/generator/manual.py' % name)

    def chapter(self, name):
        return next((chapter for chapter in self.chapters if chapter.name == name), None)

    def resolve(self, source, target):
        """What a link in the file `source` leads to: ('url', address), ('chapter', chapter, fragment) or
        ('file', path) for what is in the repository, and not in the manual."""
        if re.match(r'https?://', target):
            return ('url', target)
        path, _, fragment = target.partition('#')
        path = os.path.normpath(os.path.join(os.path.dirname(source), path)) if path else source
        for chapter in self.chapters:
            # A section of README that the manual leaves out is a matter of the repository.
            if chapter.path == path and (not fragment or fragment in _anchors(chapter)):
                return ('chapter', chapter, fragment)
        if not os.path.exists(os.path.join(self.root, path)):
            raise ValueError('%s links to %s, which is not there' % (source, target))
        return ('file', path)


def _anchors(chapter):
    return [markdown.anchor(block[2]) for block in chapter.blocks if block[0] == 'heading']


def is_of_options(block):
    """Whether a block is a table of options."""
    return block[0] == 'table' and [markdown.plain(cell) for cell in block[1][:2]] == ['name', 'default']

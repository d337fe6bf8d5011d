"""Docstrings as Markdown: cross-references become links, examples and tables of plain text blocks of code (for griffe)."""

import re

import griffe

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(?:([^`<]+) <([^`>]+)>|(~?)([\w.]+))`")
EXAMPLE = re.compile(r"(?:^>>> .*\n?(?:^(?=\S).*\n?)*)+", re.M)
TABLE = re.compile(r"^={3,} [= ]+\n.*\n={3,} [= ]+\n(?:.*\n)+?={3,} [= ]+$", re.M)


class Markdown(griffe.Extension):
    """Rewrites the docstrings of a package once all of it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        rewrite(pkg)


def rewrite(thing: griffe.Object) -> None:
    if thing.docstring:
        text = ROLE.sub(lambda role: link(thing, role), thing.docstring.value)
        text = EXAMPLE.sub(lambda example: f"```pycon\n{example[0].rstrip()}\n```\n", text)
        thing.docstring.value = TABLE.sub(lambda table: f"```text\n{table[0]}\n```", text)
    for member in thing.members.values():
        if not member.is_alias:
            rewrite(member)


def link(thing: griffe.Object, role: re.Match) -> str:
    """A link to what a role names, as seen from where it stands; plain code if that has no place in the reference."""
    text, named, short, bare = role.groups()
    target = named or bare
    try:
        path = thing.resolve(target)
    except griffe.NameResolutionError:
        path = target
    shown = text or f"<code>{target.rpartition('.')[2] if short else target}</code>"
    return f'<autoref identifier="{path}" optional>{shown}</autoref>'

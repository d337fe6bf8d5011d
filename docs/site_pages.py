"""What the site shows beside the pages of this folder: the READMEs with the measured figures, and every verb's options."""

import html
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "checkpoints" / "README.md", *sorted((ROOT / "recipes").glob("*/README.md"))]
LINK = re.compile(r"\[([^\]]+)\]\(([^):#]+)(#[^)]*)?\)")


def on_config(config: MkDocsConfig) -> None:
    """Bring the READMEs into the navigation, by their titles; and what ``make reliability`` wrote, once it has."""
    measured = next(section["Measured"] for section in config.nav if "Measured" in section)
    if (ROOT / "docs" / "reliability.md").exists():
        measured.append({"What it withstands": "reliability.md"})
    for readme in READMES:
        title = readme.read_text().partition("\n")[0].removeprefix("# ")
        measured.append({title: str(readme.relative_to(ROOT))})


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for readme in READMES:
        files.append(File.generated(config, str(readme.relative_to(ROOT)), abs_src_path=str(readme)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    uri = page.file.src_uri
    if uri == "command-line.md":
        markdown += options()
    # links are those of the repository, where this folder is docs/, and work there as well
    here = posixpath.dirname(uri if page.file.generated_by else f"docs/{uri}")

    def in_site(link: re.Match) -> str:
        text, path, anchor = link.groups()
        target = posixpath.normpath(posixpath.join(here, path)).removeprefix("docs/")
        if files.get_file_from_path(target):
            return f"[{text}]({posixpath.relpath(target, posixpath.dirname(uri) or '.')}{anchor or ''})"
        if not (ROOT / target).exists():
            return link[0]                                             # for the builder to complain about
        return text if "`" in text or "!" in link[0] else f"`{text}`"

    parts = re.split(r"(```.*?```)", markdown, flags=re.S)
    return "".join(part if part.startswith("```") else LINK.sub(in_site, part) for part in parts)


def options() -> str:
    """Every verb with its arguments and options, from what ``--help`` says of them."""
    from typer.main import get_command

    from flowavenet.cli import application

    lines = ["\n## All options\n"]
    for name, verb in get_command(application()).commands.items():
        lines += [f"### {name}\n", f"{verb.help}\n"]
        if rows := [row(one) for one in verb.params if one.name != "help"]:
            lines += ["| | |", "|---|---|", *rows, ""]
    return "\n".join(lines)


def row(one: object) -> str:
    word = one.name.upper() if one.param_type_name == "argument" else " ".join(one.opts)
    known = one.default not in (None, "", (), []) and not getattr(one, "is_flag", False) and "[" not in one.help
    default = f" [default: {' '.join(map(str, one.default)) if isinstance(one.default, list | tuple) else one.default}]"
    return f"| `{word}` | {html.escape(one.help + (default if known else ''), quote=False)} |"

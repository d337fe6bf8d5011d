"""Run campaigns, and write what they found: ``python -m tests.campaigns [NAME ...]``, or ``make reliability`` for all.

A campaign is a module beside this one. Its docstring, in Markdown, is what the page says about it, and its

    def campaign(share: float, folder: Path) -> Iterator[dict[str, Any]]

yields the rows of its table, the same columns in each; ``broken`` is the last one: how many promises were not kept.
``share`` 1 is the whole of it; ``folder`` is a place of its own, where it leaves what broke a promise.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from flowavenet.benchmark import machine
from flowavenet.files import write_atomically

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "reliability.md"
HEAD = """# What it withstands

What `SECURITY.md` promises, put to the test: each section says what was done, and how often the promise was broken. All of
it again: `make reliability`. The test suite runs the same in small, with every case that was ever found.
"""
Record = dict[str, Any]


def names() -> list[str]:
    """The campaigns that there are."""
    return sorted(module.name for module in iter_modules([str(HERE)]) if hasattr(load(module.name), "campaign"))


def load(name: str) -> Any:
    return sys.modules[__name__] if name == "__main__" else import_module(f".{name}", __package__)


def run(name: str, share: float, folder: Path) -> Record:
    """Run one campaign; what is to be kept of it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    begun, rows = time.monotonic(), []
    for row in load(name).campaign(share, folder):
        rows.append(row)
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    where = machine()
    return {
        "rows": rows, "share": share, "minutes": round((time.monotonic() - begun) / 60, 1), "date": where["date"],
        "machine": f"{where['cores']} cores of {where['cpu']}, torch {where['torch']}, Python {where['python']}",
    }


def page(found: dict[str, Record]) -> str:
    """The page of all campaigns that have been run; a ``remark`` on one is of who looked at its figures."""
    sections = [HEAD]
    for name, record in sorted(found.items()):
        words = load(name).__doc__.strip()
        share = "" if record["share"] == 1 else f" --share {record['share']:g}"
        source = f"`python -m tests.campaigns {name}{share}`, {record['minutes']:g} min on {record['machine']}"
        sections.append(f"## {words}\n\n{table(record['rows'])}\n\n{source}, {record['date']}.{record.get('remark', '')}\n")
    return "\n".join(sections)


def table(rows: list[Record]) -> str:
    """Rows as a Markdown table: words to the left, numbers to the right."""
    columns = list(rows[0])
    rule = ["---:" if isinstance(rows[0][column], int | float) else "---" for column in columns]
    lines = [columns, rule, *([str(row[column]) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(names())}  [all]")
    parser.add_argument("--share", type=float, default=1.0, help="of the whole, to try it  [%(default)g]")
    parser.add_argument("--page", type=Path, default=PAGE, help="its figures go beside it, as .json  [%(default)s]")
    options = parser.parse_args()
    figures, broken = options.page.with_suffix(".json"), 0
    if unknown := set(options.names) - set(names()):
        parser.error(f"no campaign {', '.join(unknown)}; there are {', '.join(names())}")
    for name in options.names or names():
        record = run(name, options.share, Path("out", "campaigns", name).resolve())
        broken += sum(row["broken"] for row in record["rows"])
        found = (json.loads(figures.read_text()) if figures.exists() else {}) | {name: record}
        with write_atomically(figures) as file:
            file.write_text(json.dumps(found) + "\n")
        with write_atomically(options.page) as file:
            file.write_text(page(found))
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()

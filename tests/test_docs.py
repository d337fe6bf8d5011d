"""The documentation is a site without a warning: no link leads nowhere, no docstring is misread."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="pip install 'flowavenet[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    root = Path(__file__).parents[1]
    result = subprocess.run(command, cwd=root, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    shown = (tmp_path / "command-line.html").read_text() + (tmp_path / "reference" / "vocoder.html").read_text()
    assert "--skip-existing" in shown and "from_pretrained" in shown
    for page in tmp_path.rglob("*.html"):                              # a <word> that is meant to be read is no tag
        text = page.read_text()
        tags = set(re.findall(r"<([a-z]+)>", text)) - {"br", "hr"}
        assert {tag for tag in tags if f"</{tag}>" not in text} == set(), page.name

"""The Python of READMEs and documentation runs, and their commands are commands."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "README.md", ROOT / "checkpoints" / "README.md", *sorted((ROOT / "recipes").glob("*/README.md"))]
PAGES = [*READMES, ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [(page, *match) for page in PAGES for match in re.findall(r"```(python|sh)\n(.*?)```", page.read_text(), re.S)]
TRAINING = ("fit", "distil")
LAUNCHERS = ("torchrun", "srun")


def commands(verb):
    for page, language, text in BLOCKS:
        for line in text.replace("\\\n", " ").splitlines() if language == "sh" else ():
            words = shlex.split(line, comments=True)
            if verb in words and words[0] in (verb, *LAUNCHERS):
                yield page.relative_to(ROOT), words[words.index(verb) :]


@pytest.mark.parametrize("text", [text for _, language, text in BLOCKS if language == "python"])
def test_python_block_runs(text, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    exec(text.replace('"out', f'"{tmp_path}/out'), {})


@pytest.mark.parametrize("page, words", list(commands("flowavenet")), ids=str)
def test_command_is_one_the_program_has(page, words):
    from typer.main import get_command

    from flowavenet.cli import application

    verbs = get_command(application()).commands
    assert words[1] in verbs, f"{page}: {' '.join(words)}"
    options = {name for parameter in verbs[words[1]].params for name in parameter.opts}
    if words[1] in TRAINING:
        recipe = ROOT / words[words.index("--config") + 1]
        assert recipe.is_file(), f"{page}: no recipe {recipe}"
    else:
        assert {word for word in words if word.startswith("-")} <= options, f"{page}: {' '.join(words)}"


@pytest.mark.parametrize("page, words", list(commands("make")), ids=str)
def test_make_target_is_there(page, words):
    result = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_links_lead_somewhere():
    for page in PAGES:
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (page.parent / link).exists(), f"{page}: {link}"


@pytest.mark.parametrize("verb", TRAINING)
def test_training_flags_of_the_pages_are_known(verb, flowavenet):
    """`--help` of Lightning's parser lists every flag that the pages use."""
    _, text, _ = flowavenet(verb, "--help")
    for page, words in commands("flowavenet"):
        if words[1] == verb:
            for word in words:
                flag = word.replace(".config.", ".config|").split("|")[0]
                assert not word.startswith("--") or flag in text, f"{page}: {word}"

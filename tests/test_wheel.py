"""The wheel holds all of the package: README prescribes a plain install, which has no clone beside it."""

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).parents[1]


def test_every_file_of_the_package_is_in_the_wheel(tmp_path):
    words = ["build", "--build-base", tmp_path / "build", "egg_info", "--egg-base", tmp_path]
    words += ["bdist_wheel", "--compression", "stored", "--bdist-dir", tmp_path / "wheel", "--dist-dir", tmp_path]
    program = "from setuptools import setup; setup()"                  # as pip has it, but nothing is left in the source
    subprocess.run([sys.executable, "-c", program, "-q", *map(str, words)], cwd=ROOT, check=True)
    names = set(ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    files = [path for path in (ROOT / "flowavenet").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    wanted = {path.relative_to(ROOT).as_posix() for path in files}
    wanted |= {f"flowavenet/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "checkpoints").glob("*/*")}
    assert len(wanted) > 100 and not wanted - names

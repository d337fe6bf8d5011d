"""Who may import whom: a floor of the house knows only the floors below it, and third parties stay in their rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "flowavenet"
MODULES = sorted(PACKAGE.rglob("*.py"))

FLOOR = {
    "files": 0, "transforms": 0, "nets": 0, "losses": 0, "audio": 1,
    "models": 1,
    "checkpoint": 2, "hub": 2, "interop": 2, "plots": 2, "streaming": 2, "vocoder": 2, "meldetect": 2,
    "data": 3, "evaluation": 3, "benchmark": 3, "export": 3, "tts": 3, "training": 4, "batch": 4,
    "serve": 5, "demo": 6, "cli": 7,                                   # the demo reads uploads, and listens, as the service
    "__init__": 4,
}
BASIC = {"torch", "numpy"}
THIRD_PARTIES = {
    "transforms": {"torch"}, "nets": {"torch"}, "losses": {"torch"}, "models": {"torch"},
    "files": {"numpy", "yaml"}, "audio": BASIC | {"soundfile", "soxr", "safetensors", "h5py"},
    "checkpoint": BASIC | {"safetensors", "yaml"}, "interop": BASIC | {"safetensors"}, "vocoder": BASIC,
    "benchmark": BASIC | {"yaml"},
    "evaluation": BASIC | {"soundfile", "soxr", "pesq", "pystoi", "parselmouth", "onnxruntime"},
    "plots": BASIC | {"matplotlib"}, "streaming": {"torch"}, "meldetect": BASIC, "hub": {"huggingface_hub"},
    "data": BASIC | {"soundfile", "webdataset"},
    "training": BASIC | {"pytorch_lightning", "jsonargparse", "tensorboard"},
    "demo": {"torch", "gradio"},
    "serve": BASIC | {"anyio", "fastapi", "prometheus_client", "pydantic", "starlette", "uvicorn", "websockets"},
    "export": BASIC, "cli": BASIC | {"typer", "onnxscript", "rich"}, "batch": {"torch", "fsspec", "ray"}, "tts": BASIC,
    "__init__": set(),
}
FLOOR_0_ALONE = {"files", "transforms", "nets", "losses"}


def room(module):
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(module):
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module if node.level == 0 else "flowavenet." + room(module)


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_module_keeps_to_its_floor(module):
    here = room(module)
    for name in imports(module):
        top, *rest = name.split(".")
        if top == "flowavenet":
            there = rest[0] if rest else "__init__"
            if there == here:
                continue
            assert here not in FLOOR_0_ALONE, f"{here} may import nothing of ours outside its own folder, found {name}"
            assert FLOOR[there] < FLOOR[here] or FLOOR[there] == FLOOR[here] == 2, f"{here} may not import {name}"
        elif top not in sys.stdlib_module_names:
            assert top in THIRD_PARTIES[here], f"{here} may not import {name}"


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_module_is_short(module):
    assert len(module.read_text().splitlines()) <= 500


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_module_says_what_it_is(module):
    assert ast.get_docstring(ast.parse(module.read_text())) or module.stat().st_size == 0


def modules_after(code):
    code += "; import sys; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_help_loads_nothing_heavy():
    assert not {"torch", "numpy"} & modules_after("import flowavenet, flowavenet.cli")


def test_library_and_corpus_load_nothing_they_may_not_need():
    loaded = modules_after("from flowavenet import Vocoder; import flowavenet.data.corpus")
    assert "torch" in loaded
    assert not {"pytorch_lightning", "librosa", "matplotlib", "soundfile", "scipy", "huggingface_hub"} & loaded


def test_public_names_are_all_there():
    import flowavenet

    assert all(getattr(flowavenet, name) for name in flowavenet.__all__)
    with pytest.raises(AttributeError, match="it has MelSpectrogram"):
        flowavenet.Melspectrogram  # noqa: B018

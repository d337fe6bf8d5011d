"""Shared by all tests: a fixed seed, the command line, and short real recordings."""

import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from flowavenet import cli
from flowavenet.audio import load_audio

CLIPS = sorted((Path(__file__).parent / "data").glob("*.flac"))


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def speech():
    """One second of real speech at 22,050 Hz: (1, 22016)."""
    wave = load_audio(CLIPS[0], 22050)
    middle = wave.shape[1] // 2
    return wave[:, middle : middle + 22016]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder of the short recordings, as a corpus to train on."""
    folder = tmp_path_factory.mktemp("corpus")
    for clip in CLIPS:
        shutil.copy(clip, folder)
    return folder


@torch.no_grad()
def shake(module, size=0.1):
    """Move every weight off its initial value, so that no zero initialisation hides a mistake."""
    for parameter in module.parameters():
        parameter.add_(size * torch.randn_like(parameter))
    return module


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A checkpoint folder of a small untrained model with lively weights."""
    from flowavenet.audio import MelSettings
    from flowavenet.checkpoint import save_checkpoint
    from flowavenet.models import build

    torch.manual_seed(0)
    config = {"blocks": 4, "flows": 2, "width": 8, "blocks_per_split": 2, "conditioning": "pooled"}
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    save_checkpoint(folder, shake(build("flowavenet", config, 80, 256), 0.03), MelSettings(), {"steps": 0})
    return folder


@pytest.fixture
def flowavenet(monkeypatch, capsys):
    """Run the command line in this process: returns (exit code, stdout, stderr)."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["flowavenet", *map(str, words)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run

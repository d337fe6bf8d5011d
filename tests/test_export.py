"""What is exported computes what the vocoder computes, for any batch and length."""

import sys

import pytest
import torch
from conftest import shake

from flowavenet import Vocoder, cli
from flowavenet.audio import MelSettings
from flowavenet.export import Synthesis, export_program, save_onnx
from flowavenet.models import build

LAPFLOW = {"bands": 256, "steps": 1, "layers": 1, "width": 8, "cond_width": 8, "cond_layers": 1, "filter_spread": 1}
MODELS = {
    "lapflow": LAPFLOW | {"levels": 1},
    "lapflow, no levels": LAPFLOW | {"levels": 0},
    "waveflow": {"rows": 4, "flows": 2, "layers": 1, "width": 8},
    "parallel_wavenet": {"stacks": [1, 1], "layers": 2, "width": 8, "gate_width": 8, "skip_width": 8, "gain": 10.0},
    "flowavenet": {"blocks": 2, "flows": 2, "layers": 1, "width": 8, "blocks_per_split": 1},
    "waveglow": {"flows": 3, "early_every": 1, "layers": 2, "width": 8},
    "waveglow, separable": {"group": 128, "flows": 2, "early_every": 1, "early_size": 16, "layers": 2, "width": 8,
                            "net": "separable"},
}
MODELS["parallel_wavenet, speakers"] = MODELS["parallel_wavenet"] | {"speakers": 3, "speaker_width": 4}


@pytest.fixture(scope="module", params=MODELS)
def vocoder(request):
    torch.manual_seed(0)
    return Vocoder(shake(build(request.param.split(",")[0], MODELS[request.param], 80, 256), 0.03), MelSettings())


@pytest.fixture(scope="module")
def program(vocoder):
    return export_program(vocoder)


def inputs(vocoder, batch, groups):
    frames = max(3, groups * vocoder.model.frame_grid)
    given = torch.randn(batch, frames * 256), torch.randn(batch, 80, frames) - 5
    return *given, *([torch.arange(batch) % 3] if vocoder.model.config.speakers else [])


def test_preparing_changes_nothing(vocoder):
    before = {key: value.clone() for key, value in vocoder.model.state_dict().items()}
    given = inputs(vocoder, 2, 3)
    with torch.no_grad():
        torch.testing.assert_close(Synthesis(vocoder.model)(*given), vocoder.decode(*given), atol=1e-5, rtol=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in vocoder.model.state_dict().items())


@pytest.mark.parametrize("batch, groups", [(1, 2), (1, 31), (3, 5)])
def test_program_is_the_vocoder(vocoder, program, batch, groups):
    given = inputs(vocoder, batch, groups)
    torch.testing.assert_close(program.module()(*given), vocoder.decode(*given), atol=1e-5, rtol=1e-4)


def test_onnx_is_the_vocoder(vocoder, program, tmp_path):
    pytest.importorskip("onnxscript", reason="needs the extra 'export'")
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra 'export'")
    save_onnx(program, tmp_path / "vocoder.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["vocoder.onnx"]
    session = runtime.InferenceSession(tmp_path / "vocoder.onnx")
    for batch, groups in ((1, 2), (1, 31), (3, 5)):
        given = inputs(vocoder, batch, groups)
        names = [one.name for one in session.get_inputs()]
        assert names == ["noise", "mel", "speaker"][: len(given)]
        wave = session.run(None, {name: part.numpy() for name, part in zip(names, given, strict=True)})[0]
        torch.testing.assert_close(torch.from_numpy(wave), vocoder.decode(*given), atol=1e-4, rtol=0)


def test_verb_says_what_is_missing(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr(sys, "argv", ["flowavenet", "export", str(tmp_path / "x.onnx"), "--checkpoint", str(tiny)])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "flowavenet[export]" in said and len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_what_decodes_sample_by_sample_is_refused():
    model = build("wavenet", {"layers": 1, "width": 4}, 80, 256)
    with pytest.raises(ValueError, match="a WaveNet decodes sample by sample"):
        export_program(Vocoder(model, MelSettings()))

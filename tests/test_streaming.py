"""A stream is the whole, cut anywhere; noise is a function of seed and position."""

import pytest
import torch
from conftest import shake

from flowavenet import Vocoder
from flowavenet.audio import MelSettings
from flowavenet.models import build
from flowavenet.streaming import BLOCK, Noise

# small mels and hops, so that many chunks and the whole context are quick
MEL = MelSettings(sample_rate=8000, n_fft=64, win_length=64, hop_length=16, n_mels=8, f_max=4000.0)
MODELS = {
    "lapflow": ("lapflow", {"bands": 16, "steps": 1, "layers": 1, "width": 16, "kernel_size": 3, "cond_width": 8,
                            "cond_layers": 2}),
    "lapflow, finer, three levels": ("lapflow", {"bands": 8, "levels": 3, "steps": 1, "layers": 1, "width": 8,
                                                 "kernel_size": 3, "cond_width": 4, "cond_layers": 1}),
    "lapflow, causal": ("lapflow", {"bands": 16, "levels": 1, "steps": 1, "layers": 2, "width": 16, "kernel_size": 3,
                                    "cond_width": 8, "cond_layers": 2, "causal": True}),
    "lapflow2": ("lapflow2", {"subbands": 2, "bins": 8, "octaves": [1, 2], "radial_bins": [4], "encoder_width": 8,
                              "encoder_layers": 1, "width": [8], "layers": [1], "fold": 2, "low_fold": 2, "low_width": 8,
                              "low_layers": 1, "sample_rate": 8000.0, "f_max": 4000.0}),
    "waveflow": ("waveflow", {"rows": 4, "flows": 2, "layers": 1, "width": 8}),
    "flowavenet": ("flowavenet", {"blocks": 2, "flows": 2, "layers": 1, "width": 8, "blocks_per_split": 1}),
    "wavenet": ("wavenet", {"layers": 2, "width": 6, "gate_width": 5, "skip_width": 4, "front_size": 3}),
    "gaussian_iaf": ("gaussian_iaf", {"layers": 3, "width": 6, "gate_width": 5, "skip_width": 4, "stacks": [1, 1]}),
    "waveglow": ("waveglow", {"group": 4, "flows": 2, "early_every": 1, "layers": 2, "width": 8}),
    "squeezewave": ("waveglow", {"group": 8, "flows": 2, "early_every": 1, "layers": 2, "width": 8, "net": "separable"}),
    "flowavenet, pooled": ("flowavenet", {"blocks": 3, "flows": 2, "layers": 1, "width": 8, "conditioning": "pooled"}),
}


def make(name, hop=16):
    settings = MelSettings(**(MEL.__dict__ | {"hop_length": hop}))
    model, config = MODELS[name]
    return Vocoder(shake(build(model, config, 8, hop), 0.05), settings).double()


def cut(mel, lengths):
    done = 0
    for length in lengths:
        yield mel[..., done : done + length]
        done += length


@pytest.mark.parametrize("chunk_frames, denoise", [(1, 0.5), (7, 0.0), (32, 0.5), (500, 0.0)])
@pytest.mark.parametrize("name", MODELS)
def test_chunks_are_the_whole(name, chunk_frames, denoise):
    vocoder = make(name)
    mel = torch.randn(2, 8, 83, dtype=torch.float64)
    whole = vocoder(mel, seed=3, match=2, denoise=denoise)
    options = {"seed": 3, "match": 2, "denoise": denoise}
    chunks = list(vocoder.stream(cut(mel, [1, 0, 5, 40, 37]), chunk_frames, **options))
    assert all(chunk.shape == (2, chunk_frames * 16) for chunk in chunks[:-1])
    torch.testing.assert_close(torch.cat(chunks, dim=1), whole, atol=1e-10, rtol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_less_context_would_show(name):
    """The receptive field is no larger than it must be by more than the grid: with half of it the pieces do not fit."""
    vocoder = make(name)
    if vocoder.model.sequential == "decode":
        pytest.skip("it goes on from where it was, whatever the context")
    mel = torch.randn(1, 8, 200, dtype=torch.float64)
    whole = vocoder(mel, seed=0, match=0)
    field = tuple(side // 4 for side in vocoder.model.receptive_field)
    vocoder.synthesiser.receptive_field = lambda *_: field
    assert (torch.cat(list(vocoder.stream(mel, 8, seed=0, match=0)), dim=1) - whole).abs().max() > 1e-9


def test_a_hop_that_is_no_multiple_of_the_group():
    vocoder = make("flowavenet", hop=12)
    mel = torch.randn(1, 8, 50, dtype=torch.float64)
    chunks = torch.cat(list(vocoder.stream(mel, 7, seed=0)), dim=1)
    torch.testing.assert_close(chunks, vocoder(mel, seed=0), atol=1e-10, rtol=1e-12)


def test_chunks_come_as_soon_as_their_context_is_there():
    vocoder = make("lapflow")
    look_ahead, asked = vocoder.receptive_field(match=0)[1], 0

    def arriving():
        nonlocal asked
        for _ in range(120):
            asked += 1
            yield torch.randn(1, 8, 1, dtype=torch.float64)

    stream = vocoder.stream(arriving(), 10, seed=0, match=0)
    for number in range(1, 5):
        next(stream)
        assert asked == 10 * number + look_ahead


def test_long_mels_are_tiled_without_a_trace(monkeypatch):
    vocoder = make("lapflow")
    mel = torch.randn(1, 8, 150, dtype=torch.float64)
    whole, longest = vocoder(mel, seed=0), 0
    render = vocoder.model.render

    def watched(noise, window, *others):
        nonlocal longest
        longest = max(longest, window.shape[-1])
        return render(noise, window, *others)

    monkeypatch.setattr(vocoder, "tile", lambda *_: 20)
    monkeypatch.setattr(vocoder.model, "render", watched)
    torch.testing.assert_close(vocoder(mel, seed=0), whole, atol=1e-10, rtol=1e-12)
    assert longest <= 20 + sum(vocoder.receptive_field()) + 4


def test_no_frames_and_no_chunks():
    vocoder = make("lapflow")
    assert list(vocoder.stream(iter([]), 8)) == []
    with pytest.raises(ValueError, match="at least 1 frame"):
        next(vocoder.stream(torch.randn(1, 8, 5).double(), 0))
    with pytest.raises(ValueError, match="0 frames"):
        vocoder(torch.randn(1, 8, 0).double())


def test_noise_is_a_function_of_seed_and_position():
    noise = Noise(5, 2)
    whole = noise(0, 3 * BLOCK)
    for start, stop in ((0, 1), (7, 50), (BLOCK - 1, BLOCK + 1), (100, 2 * BLOCK + 3), (BLOCK, BLOCK)):
        assert torch.equal(noise(start, stop), whole[:, start:stop])
    assert whole.mean().abs() < 0.02 and abs(whole.std() - 1) < 0.02
    other = Noise(6, 2)(0, 3 * BLOCK)
    for a, b in ((whole[0], whole[1]), (whole[0, :BLOCK], whole[0, BLOCK : 2 * BLOCK]), (whole[0], other[0])):
        assert abs(torch.corrcoef(torch.stack([a, b]))[0, 1]) < 0.05


def test_a_seed_per_item_makes_each_what_it_would_be_alone():
    vocoder = make("lapflow")
    mel = torch.randn(3, 8, 20, dtype=torch.float64)
    together = vocoder(mel, seed=[7, 8, 7])
    for item, seed in enumerate((7, 8, 7)):
        alone = vocoder(mel[item : item + 1], seed=seed)
        torch.testing.assert_close(together[item : item + 1], alone, atol=1e-10, rtol=1e-12)
    with pytest.raises(ValueError, match="2 seeds for a batch of 3"):
        vocoder(mel, seed=[1, 2])

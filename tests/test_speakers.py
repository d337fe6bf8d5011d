"""Several voices: a number or a vector says whose, for every model, from the corpus to the command line."""

import dataclasses
import importlib.util
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import soundfile
import torch
import yaml
from conftest import CLIPS, shake

from flowavenet import Vocoder
from flowavenet.audio import MelSettings
from flowavenet.checkpoint import save_checkpoint
from flowavenet.models import build

VOICES = {"speakers": 3, "speaker_width": 4}
SMALL = {"blocks": 3, "flows": 2, "width": 8, "blocks_per_split": 2}
LAPPED = {"bands": 64, "steps": 2, "layers": 1, "width": 16, "cond_width": 8, "cond_layers": 1}
# label -> (name in MODELS, config)
MODELS = {
    "halved": ("flowavenet", SMALL),
    "full": ("flowavenet", SMALL | {"conditioning": "full"}),
    "pooled": ("flowavenet", SMALL | {"conditioning": "pooled"}),
    "lapflow": ("lapflow", LAPPED),
    "waveglow": ("waveglow", {"flows": 4, "early_every": 2, "layers": 2, "width": 8}),
}
SETTINGS = MelSettings(sample_rate=8000, n_fft=64, win_length=64, hop_length=16, n_mels=8, f_max=4000.0)
NAMES = ["anna", "ben", "cleo"]


def make(label="lapflow", voices=VOICES):
    name, config = MODELS[label]
    return shake(build(name, config | voices, SETTINGS.n_mels, SETTINGS.hop_length), 0.1).eval()


@pytest.fixture(params=MODELS)
def model(request):
    return make(request.param).double()


@pytest.fixture
def vocoder():
    return Vocoder(make(), SETTINGS, {"speakers": NAMES})


def given(batch=3, frames=8, dtype=torch.float64):
    return torch.randn(batch, frames * 16, dtype=dtype) / 10, torch.randn(batch, 8, frames, dtype=dtype)


# Models


@torch.no_grad()
def test_another_speaker_is_another_density_and_another_sample(model):
    wave, mel = given()
    zero, one = torch.tensor([0]), torch.tensor([1])
    assert (model.log_prob(wave, mel, zero) - model.log_prob(wave, mel, one)).abs().min() > 1e-3
    drawn = [model.sample(mel, 1.0, torch.Generator().manual_seed(0), speaker) for speaker in (zero, one)]
    assert (drawn[0] - drawn[1]).abs().amax(dim=1).min() > 1e-3


@torch.no_grad()
def test_a_number_is_the_vector_of_its_row_and_items_keep_their_own(model):
    wave, mel = given()
    together = model.log_prob(wave, mel, torch.tensor([2, 0, 1]))
    torch.testing.assert_close(model.log_prob(wave, mel, model.voices.weight[[2, 0, 1]]), together)
    alone = [model.log_prob(wave[i : i + 1], mel[i : i + 1], torch.tensor([k])) for i, k in enumerate([2, 0, 1])]
    torch.testing.assert_close(torch.cat(alone), together)


@torch.no_grad()
def test_vectors_alone_need_no_numbers(model):
    vectors = type(model)(dataclasses.replace(model.config, speakers=0), model.n_mels, model.hop_length).double().eval()
    vectors.load_state_dict({key: value for key, value in model.state_dict().items() if key != "voices.weight"})
    wave, mel = given()
    voice = torch.randn(3, 4)
    noise, _ = vectors.encode(wave, mel, voice)
    torch.testing.assert_close(vectors.decode(noise, mel, voice), wave)
    assert (vectors.decode(noise, mel, -voice) - wave).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"speaker is \[0\]; this model wants vectors \(3, 4\)"):
        vectors.log_prob(wave, mel, torch.tensor([0]))


def test_only_the_voices_that_were_heard_learn(model):
    optimizer = torch.optim.AdamW(model.train().parameters(), 1e-2, weight_decay=0.0)
    before = model.voices.weight.detach().clone()
    for _ in range(2):
        wave, mel = given(batch=2)
        (-model.log_prob(wave, mel, torch.tensor([0, 2])).mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
    moved = (model.voices.weight != before).any(dim=1)
    assert moved.tolist() == [True, False, True]


@pytest.mark.parametrize("speaker, message", [
    (None, r"speaker is missing; this model wants numbers \(3,\) from 0 to 2 or vectors \(3, 4\)"),
    (torch.tensor([0, 1, 3]), r"speaker is \[0, 1, 3\]"),
    (torch.tensor([-1]), r"speaker is \[-1\]"),
    (torch.tensor([0, 1]), r"shape \(2,\)"),
    (torch.tensor(0), r"shape \(\)"),
    (torch.zeros(3, 5), r"shape \(3, 5\)"),
    (torch.zeros(3), r"shape \(3,\), torch.float32"),
])
def test_what_is_no_speaker_is_one_line(speaker, message):
    wave, mel = given(dtype=torch.float32)
    with pytest.raises(ValueError, match=message) as error:
        make().log_prob(wave, mel, speaker)
    assert len(str(error.value).splitlines()) == 1


def test_who_knows_no_voices_wants_none():
    wave, mel = given(dtype=torch.float32)
    with pytest.raises(ValueError, match="leave it out"):
        make(voices={}).log_prob(wave, mel, torch.tensor([0]))
    with pytest.raises(ValueError, match="speakers is 3, speaker_width 0; give it a width"):
        make(voices={"speakers": 3})


def test_a_step_with_speakers_is_one_graph():
    model, (wave, mel), speaker = make(), given(dtype=torch.float32), torch.tensor([0, 1, 2])
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(wave, mel, speaker), model(wave, mel, speaker), rtol=1e-4, atol=1e-3)


# The vocoder


def test_names_numbers_and_vectors_are_the_same_voice(vocoder):
    mel = torch.randn(2, 8, 30)
    wanted = vocoder(mel, seed=0, speaker=["ben", "anna"])
    row = vocoder.model.voices.weight.detach()
    for same in ([1, 0], ["ben", 0], torch.tensor([1, 0]), row[[1, 0]], vocoder.voice(["ben", "anna"])):
        assert torch.equal(vocoder(mel, seed=0, speaker=same), wanted)
    for one in ("ben", 1, torch.tensor(1), row[1]):
        torch.testing.assert_close(vocoder(mel, seed=0, speaker=one)[0], wanted[0])
    assert not torch.allclose(vocoder(mel, seed=0, speaker="ben")[1], wanted[1])


def test_streams_and_the_denoiser_follow_the_voice(vocoder):
    vocoder = Vocoder(deepcopy(vocoder.model), SETTINGS, vocoder.facts).double()      # rounding is not what this is about
    mel = torch.randn(2, 8, 100)
    for speaker in ("anna", ["cleo", "ben"]):
        whole = vocoder(mel, seed=0, speaker=speaker, denoise=0.5)
        chunks = torch.cat(list(vocoder.stream(mel, 30, seed=0, speaker=speaker, denoise=0.5)), dim=1)
        torch.testing.assert_close(chunks, whole, atol=1e-9, rtol=0)
        alone = Vocoder(vocoder.model, SETTINGS, vocoder.facts).double()(mel, seed=0, speaker=speaker, denoise=0.5)
        torch.testing.assert_close(alone, whole)


def test_noise_goes_back_to_the_wave_with_the_same_speaker_only(vocoder):
    wave, mel = given(batch=1, dtype=torch.float32)
    noise = vocoder.encode(wave, mel, "ben")
    torch.testing.assert_close(vocoder.decode(noise, mel, "ben"), wave, atol=1e-4, rtol=0)
    assert not torch.allclose(vocoder.decode(noise, mel, "cleo"), wave, atol=1e-2)
    assert vocoder.log_prob(wave, mel, "ben") != vocoder.log_prob(wave, mel, "anna")


def test_a_checkpoint_keeps_the_names(vocoder, tmp_path):
    vocoder.save(tmp_path)
    again = Vocoder.from_pretrained(tmp_path)
    assert again.speakers == NAMES and "| speakers | anna, ben, cleo |" in (tmp_path / "README.md").read_text()
    mel = torch.randn(1, 8, 9)
    assert torch.equal(again(mel, seed=0, speaker="cleo"), vocoder(mel, seed=0, speaker="cleo"))
    assert Vocoder(vocoder.model, SETTINGS).speakers == ["0", "1", "2"]


@pytest.mark.parametrize("speaker, message", [
    (None, "choose one of: anna, ben, cleo"), ("dora", "'dora' is not known; choose one of: anna, ben, cleo"),
    (["ben", "dora"], "'dora' is not known"), (7, r"\[7\]; this model wants numbers \(1,\) from 0 to 2"),
])
def test_unknown_voices_are_answered_with_the_known_ones(vocoder, speaker, message):
    with pytest.raises(ValueError, match=message):
        vocoder.stream(torch.randn(1, 8, 9), speaker=speaker)


# The command line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint of three voices at 22,050 Hz."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("voices") / "three"
    save_checkpoint(folder, shake(build("lapflow", LAPPED | VOICES, 80, 256), 0.03), MelSettings(), {"speakers": NAMES})
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Half a second of speech."""
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    wave, rate = soundfile.read(CLIPS[0])
    soundfile.write(path, wave[rate : rate + rate // 2], rate)
    return path


def test_verbs_want_a_speaker_by_name(flowavenet, folder, clip, tmp_path):
    made = []
    for name in ("anna", "ben"):
        words = ["vocode", clip, "-o", tmp_path / name, "--checkpoint", folder, "--speaker", name]
        assert flowavenet(*words, "--match", "0")[0] == 0
        made.append(soundfile.read(tmp_path / name / "clip.wav")[0])
    assert not (made[0] == made[1]).all()
    said = [flowavenet("score", clip, "--checkpoint", folder, "--speaker", name)[1] for name in ("anna", "ben", "ben")]
    assert said[0] != said[1] == said[2]
    for words in (["vocode", clip, "-o", tmp_path / "none"], ["score", clip], ["tune", clip]):
        for more, message in ([], "anna, ben, cleo"), (["--speaker", "dora"], "'dora' is not known"):
            code, _, complaint = flowavenet(*words, "--checkpoint", folder, *more)
            assert code == 2 and message in complaint and len(complaint.splitlines()) == 1
    assert not (tmp_path / "none").exists()


def test_voice_swap_gives_back_the_same_voice_and_changes_another(folder, clip, tmp_path, monkeypatch, capsys):
    file = Path(__file__).parents[1] / "recipes" / "speakers" / "voice_swap.py"
    place = importlib.util.spec_from_file_location("voice_swap", file)
    place.loader.exec_module(script := importlib.util.module_from_spec(place))
    changed = []
    for target, bands in (("ben", 0), ("anna", 0), ("anna", 3)):
        words = [clip, "--checkpoint", folder, "--source", "ben", "--target", target, "--bands", bands]
        monkeypatch.setattr(sys, "argv", ["voice_swap.py", *map(str, words), "-o", str(tmp_path / "x.wav")])
        script.main()
        said = capsys.readouterr().out
        changed.append(float(said.split("changed by ")[1].split(" dB")[0]))
        assert "anna" in said and (tmp_path / "x.wav").exists()
    assert changed[0] < -60 < changed[1] != changed[2]
    mel = torch.arange(4.0)[None, :, None]
    assert script.moved(mel, 1).flatten().tolist() == [0, 0, 1, 2]
    assert script.moved(mel, -2).flatten().tolist() == [2, 3, 3, 3]


# Training


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    """A corpus of two speakers: a manifest."""
    file = tmp_path_factory.mktemp("corpus") / "corpus.csv"
    rows = zip(CLIPS, ("ben", "anna", "ben", "anna"), ("train", "train", "valid", "valid"), strict=True)
    file.write_text("path,speaker,split\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return file


def arguments(corpus, run, *more, speakers=3, in_memory="true"):
    config = LAPPED | VOICES | {"speakers": speakers}
    return [
        *("--model.name", "lapflow", "--model.config", yaml.safe_dump(config, default_flow_style=True)),
        *("--data.corpus", str(corpus), "--trainer.default_root_dir", str(run), "--data.in_memory", in_memory),
        *("--data.segment_frames", "4", "--data.batch_size", "2", "--data.workers", "0"),
        *("--trainer.max_epochs", "-1", "--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
        *("--trainer.num_sanity_val_steps", "0", "--trainer.check_val_every_n_epoch", "null", "--model.init_crops", "2"),
        *more,
    ]


def test_crops_tell_their_speaker(voices):
    from flowavenet.audio import MelSpectrogram
    from flowavenet.data.corpus import read_corpus
    from flowavenet.data.crops import Crops, CropsInMemory, FixedCrops

    clips, mel = read_corpus(voices), MelSpectrogram(MelSettings())
    for kind in (Crops, CropsInMemory, FixedCrops):
        crops = kind(clips, mel, 4, 0, -80.0)
        for index in range(8):
            name = clips[crops.draw(index)[0]].speaker
            assert ["anna", "ben"][crops[index]["speaker"]] == name
        assert kind(clips, mel, 4, 0, -80.0, ["x", "ben", "anna"])[0]["speaker"] > 0


def test_training_tells_speakers_apart_and_saves_their_names(voices, tmp_path):
    """In memory and from disk alike; the voice that is not in the corpus stays as it is; resumed is uninterrupted."""
    from flowavenet.training.fit import fit
    from flowavenet.training.likelihood import LikelihoodTraining

    often = ["--trainer.val_check_interval", "4", "--showcase.clips", "1", "--ema.decay", "0"]
    finals = []
    for run, in_memory in (("kept", "true"), ("decoded", "false")):
        words = arguments(voices, tmp_path / run, *often, in_memory=in_memory)
        finals.append(fit([*words, "--trainer.max_steps", "4"]).lightning_module.model.state_dict())
    for key, value in finals[0].items():
        torch.testing.assert_close(finals[1][key], value)
    words = arguments(voices, tmp_path / "resumed", *often)
    fit([*words, "--trainer.max_steps", "2"])
    resumed = fit([*words, "--trainer.max_steps", "4", "--ckpt_path", "last"]).lightning_module.model.state_dict()
    assert all(torch.equal(resumed[key], value) for key, value in finals[0].items())
    start = LikelihoodTraining(name="lapflow", config=LAPPED | VOICES).model.voices.weight
    assert (resumed["voices.weight"] != start).any(dim=1).tolist() == [True, True, False]
    vocoder = Vocoder.from_pretrained(tmp_path / "kept" / "vocoder")
    assert vocoder.speakers == ["anna", "ben"]
    assert vocoder(torch.zeros(1, 80, 3) - 5, speaker="ben").isfinite().all()


def test_corpora_that_do_not_fit_the_model_are_one_line(voices, corpus, tmp_path):
    from flowavenet.training.fit import fit

    few = ["--trainer.max_steps", "1", "--trainer.limit_val_batches", "0"]
    with pytest.raises(ValueError, match="has 2 speakers, the model's config only speakers: 1; make that 2 or more"):
        fit(arguments(voices, tmp_path / "run", *few, speakers=1))
    with pytest.raises(ValueError, match=r"\d+ of \d+ clips have no speaker"):
        fit(arguments(corpus, tmp_path / "run", *few))
    (other := tmp_path / "other.csv").write_text(voices.read_text())
    fit(arguments(other, tmp_path / "run", *few))
    other.write_text(voices.read_text().replace(",anna,", ",cleo,"))
    with pytest.raises(ValueError, match="has the speakers ben, cleo, but the run began with anna, ben"):
        fit(arguments(other, tmp_path / "run", *few[2:], "--trainer.max_steps", "2", "--ckpt_path", "last"))

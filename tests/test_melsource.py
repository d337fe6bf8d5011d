"""Any mel, whole or in pieces: the vocoder's own stays as it is, another's is brought to it, what cannot be is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import CLIPS

from flowavenet.audio import CONVENTIONS, MelMatching, MelSettings, MelSpectrogram, convert, load_audio, load_mel
from flowavenet.audio.conversion import Converter
from flowavenet.meldetect import detect_together, identify, with_offset

DATA = Path(__file__).parent / "data"
PREDICTED = DATA / "tacotron2.npy"
HIFIGAN = CONVENTIONS["hifigan"]
REAL = Path(__file__).parents[2] / "shared" / "mels"
NEW_RATE = [("rayhane_275", "hifigan"), ("bigvgan_44k", "hifigan"), ("hifigan", "parallel_wavegan_24k")]


def analysed(name, clip=CLIPS[0]):
    spectrogram = MelSpectrogram(CONVENTIONS[name])
    return spectrogram(spectrogram.normalise(load_audio(clip, CONVENTIONS[name].sample_rate)))


@pytest.mark.parametrize("sizes", [[1], [2, 1, 7], [60]])
@pytest.mark.parametrize("source, target", [*NEW_RATE, ("hifigan", "matcha"), ("coqui", "hifigan")])
def test_pieces_become_what_the_whole_does(source, target, sizes):
    converter = Converter(CONVENTIONS[source], CONVENTIONS[target])
    mel = analysed(source)[..., :61]
    whole = converter(mel)
    cuts = np.cumsum(sizes * 61)
    pieces = list(converter.stream(piece for piece in mel.tensor_split(cuts[cuts < 61].tolist(), dim=2)))
    assert len(pieces) > 1 and whole.shape[2] == converter.frames(61)
    torch.testing.assert_close(torch.cat(pieces, dim=2), whole)


@pytest.mark.parametrize("source, target", NEW_RATE)
def test_frames_stay_where_they_are_in_time(source, target):
    """Of a mel whose values are the times of the middles of its frames, so are those of the other."""
    source, target = (replace(CONVENTIONS[name], floor=1e-30, clip=None) for name in (source, target))
    converter = Converter(source, target)
    converter._written = lambda mel: mel
    middles = [(torch.arange(300.0) + 0.5) * (one.hop_length / one.sample_rate) for one in (source, target)]
    there = converter(middles[0][:200].expand(1, 80, -1))[0, 0, 1:-1]  # beyond the ends nothing is known
    torch.testing.assert_close(there, middles[1][1 : 1 + len(there)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("turned", [False, True])
def test_the_vocoders_own_stays_as_it_is(turned, dtype):
    mel = load_mel(PREDICTED, 80).to(dtype)
    source = identify(mel.transpose(1, 2) if turned else mel, HIFIGAN)
    assert source.note == "" and source.conversion is None and source.frames(285) == 285
    assert torch.equal(source(source.arrange(mel.transpose(1, 2) if turned else mel)), mel.float())


@pytest.mark.parametrize("name", ["rayhane", "mozilla", "vocos", "bigvgan_44k"])
def test_another_convention_is_recognised_and_converted(name):
    mel = analysed(name, DATA / "lj.flac")
    source = identify(mel, HIFIGAN)
    there, report = convert(mel, CONVENTIONS[name], HIFIGAN)
    assert source.settings == CONVENTIONS[name] and source.conversion == report
    assert source.note.startswith((f"is {name}; converted to", f"taken as {name}, which is not sure: "))
    assert "; converted to hifigan, " in source.note
    assert torch.equal(source(source.arrange(mel)), there) and source.frames(mel.shape[2]) == there.shape[2]


@pytest.mark.parametrize("name", ["rayhane", "bigvgan_44k"])
def test_wider_floats_are_converted_as_well(name):
    mel = analysed(name)
    there = (identify(mel.to(dtype), HIFIGAN, name)(mel.to(dtype)) for dtype in (torch.float32, torch.float64))
    torch.testing.assert_close(*there, atol=1e-4, rtol=1e-4, check_dtype=False)


def test_what_was_said_counts():
    mel = load_mel(PREDICTED, 80)
    source = identify(mel, HIFIGAN, "matcha")
    torch.testing.assert_close(source(mel), convert(mel, CONVENTIONS["matcha"], HIFIGAN)[0])
    assert identify(mel, HIFIGAN, CONVENTIONS["matcha"]).note == source.note
    assert identify(mel, HIFIGAN, HIFIGAN).conversion is None


def test_the_level_is_added_first():
    mel = load_mel(PREDICTED, 80)
    louder = identify(mel, CONVENTIONS["matcha"], "hifigan", level_db=6.0)
    there, _ = convert(with_offset(mel, HIFIGAN, 6.0), HIFIGAN, CONVENTIONS["matcha"])
    torch.testing.assert_close(louder(mel), there)
    assert louder.level_note == "made +6 dB louder" and "s at hop 256 and 22050 Hz; made" in louder.notes(285)


def test_in_doubt_it_is_the_vocoders_own():
    noise = torch.randn(80, 300) * 2 - 5                               # nobody's speech
    source = identify(noise, HIFIGAN)
    assert source.settings == HIFIGAN and "hifigan, the vocoder's own" in source.note
    assert torch.equal(source(source.arrange(noise)), noise[None])


@pytest.mark.parametrize(
    "mel, says",
    [
        (torch.randn(60, 300), "no dimension of 80 bands"),
        (torch.randn(80), "no dimension of 80 bands"),
        ("standardised", "statistics"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_the_cure(mel, says):
    if isinstance(mel, str):
        mel = torch.cat([analysed("parallel_wavegan", clip) for clip in CLIPS], dim=2)
        mel = (mel - mel.mean(2, keepdim=True)) / mel.std(2, keepdim=True)
    with pytest.raises(ValueError, match=says) as error:
        identify(mel, HIFIGAN)
    assert "\n" not in str(error.value)


def test_what_no_convention_explains_is_refused_with_what_was_seen_and_the_ways_on():
    grid = dict(sample_rate=44100, n_fft=2048, win_length=2048, hop_length=512, n_mels=100, f_max=22050.0)
    settings = MelSettings(mel_scale="htk", norm=None, floor=1e-7, eps=1e-24, **grid)
    mel = MelSpectrogram(settings)(load_audio(DATA / "lj.flac", 44100))
    with pytest.raises(ValueError, match="no convention that is known explains it: .*--mel-convention.*--mel-con") as error:
        identify(mel, HIFIGAN)
    assert "\n" not in str(error.value)


def test_a_convention_of_the_users_own_is_recognised(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "flowavenet").mkdir()
    (tmp_path / "flowavenet" / "conventions.yaml").write_text("ours:\n  like: hifigan\n  log: db\n  offset: 200\n")
    mel = 20 * analysed("hifigan", DATA / "lj.flac").exp().log10() + 200
    assert identify(mel, HIFIGAN).note.startswith(("is ours; converted to", "taken as ours, "))


def test_mels_that_come_together_are_judged_together(tmp_path):
    """Pieces too short to be told one by one, but by all of them."""
    mel, files = analysed("rayhane", DATA / "lj.flac"), []
    for number, piece in enumerate(mel.split(30, dim=2)):
        files.append(tmp_path / f"{number}.npy")
        np.save(files[-1], piece.numpy())
    alone = [identify(torch.from_numpy(np.load(file)), HIFIGAN).detection for file in files]
    together = detect_together(files, HIFIGAN)
    assert together.names == ("rayhane",) and not all(one.sure for one in alone)
    for file, one in zip(files, alone, strict=True):
        source = identify(torch.from_numpy(np.load(file)), HIFIGAN, together=together)
        assert one.sure or source.settings == CONVENTIONS["rayhane"]
    np.save(files[0], np.zeros((100, 50), np.float32))
    assert detect_together(files[:2], HIFIGAN) is None


def test_vocode_and_mel_tell_and_convert(flowavenet, tiny, tmp_path):
    own, other = analysed("hifigan", DATA / "lj.flac"), analysed("rayhane", DATA / "lj.flac")
    for name, mel in [("own", own), ("other", other), ("more", other[..., 40:])]:
        np.save(tmp_path / f"{name}.npy", mel[0].T.numpy())
    words = ["--checkpoint", tiny]
    code, _, complaint = flowavenet("vocode", tmp_path, "-o", tmp_path / "wav", *words)
    notes = [line for line in complaint.splitlines() if "converted" in line]
    assert code == 0 and notes and all("the mel is converted from rayhane" in line for line in notes)
    code, _, complaint = flowavenet("vocode", tmp_path, "-o", tmp_path / "wav", *words, "--verbose")
    notes = [line for line in complaint.splitlines() if "converted" in line]
    assert code == 0 and notes and all("rayhane" in line and "; converted to hifigan" in line for line in notes)
    assert all(soundfile.info(tmp_path / "wav" / f"{stem}.wav").frames == own.shape[2] * 256 for stem in ("own", "other"))

    code, said, _ = flowavenet("mel", tmp_path / "other.npy", "-o", tmp_path / "mel", *words)
    assert code == 0 and "rayhane" in said and "; converted to hifigan" in said and "below 25 Hz" in said
    assert torch.equal(load_mel(tmp_path / "mel" / "other.npy", 80), convert(other, CONVENTIONS["rayhane"], HIFIGAN)[0])
    (tmp_path / "mel" / "other.npy").rename(tmp_path / "converted.npy")
    heard = []
    for name, said in [("other", []), ("converted", "hifigan"), ("other", "coqui")]:
        more = ["--mel-convention", said] if said else []
        assert flowavenet("vocode", tmp_path / f"{name}.npy", "-o", tmp_path / "wav", *words, *more)[0] == 0
        heard.append(soundfile.read(tmp_path / "wav" / f"{name}.wav")[0])
    assert np.array_equal(heard[0], heard[1]) and not np.allclose(heard[0], heard[2], atol=0.01)


def test_the_settings_of_the_front_end_count(flowavenet, tmp_path):
    """Duration within a frame and level within 1 dB, of a mel that no listed convention explains."""
    settings = MelSettings(sample_rate=16000, n_fft=640, win_length=640, hop_length=160, f_min=60.0, f_max=7000.0)
    wave = load_audio(DATA / "lj.flac", 16000)
    np.save(tmp_path / "x.npy", MelSpectrogram(settings)(wave)[0].numpy())
    (tmp_path / "config.json").write_text(
        '{"audio": {"sampling_rate": 16000, "n_fft": 640, "hop_size": 160, "num_mels": 80, "fmin": 60, "fmax": 7000}}'
    )
    told = ["--mel-config", tmp_path / "config.json"]
    code, said, _ = flowavenet("mel", tmp_path / "x.npy", "--to", "hifigan", "-o", tmp_path / "out", *told)
    seconds = wave.shape[1] / 16000
    assert code == 0 and f"{-(-wave.shape[1] // 160)} frames, {seconds:.1f}" in said
    theirs, own = load_mel(tmp_path / "out" / "x.npy", 80), analysed("hifigan", DATA / "lj.flac")
    assert abs(theirs.shape[2] - own.shape[2]) <= 1
    frames = min(theirs.shape[2], own.shape[2])
    off = (theirs[..., :frames] - own[..., :frames])[:, 4:70] * 8.686
    loud = own[:, 4:70, :frames] > own.max() - 5
    assert abs(off[loud].median()) < 1 and off[loud].abs().mean() < 4
    code, said, _ = flowavenet("mel", tmp_path / "x.npy", "--to", "hifigan", "--mel-rate", 16000, "--mel-hop", 200)
    assert code == 0 and "hop 200 at 16000 Hz" in said
    code, _, complaint = flowavenet("mel", tmp_path / "x.npy", "--to", "hifigan", *told, "--mel-convention", "vocos")
    assert code == 2 and "give one of them" in complaint
    assert flowavenet("mel", tmp_path / "x.npy", "--to", "hifigan", "--mel-log", "log2")[0] == 2


def test_there_is_one_statement_about_level(flowavenet, tiny, tmp_path):
    np.save(tmp_path / "loud.npy", analysed("rayhane", DATA / "lj.flac").numpy()[..., :150] + 3.0)
    words = ["--checkpoint", tiny, "--mel-convention", "rayhane", "--verbose"]
    code, _, complaint = flowavenet("vocode", tmp_path / "loud.npy", "-o", tmp_path, *words)
    assert code == 0 and "1.74 s at hop 256" in complaint
    assert ("average speech" in complaint) + ("full scale" in complaint) <= 1


def test_mel_analyses_recordings_and_compares_levels(flowavenet, tmp_path):
    code, _, complaint = flowavenet("mel", CLIPS[0])
    assert code == 2 and "-o FOLDER" in complaint
    assert flowavenet("mel", CLIPS[0], "-o", tmp_path, "--to", "vocos")[0] == 0
    file = tmp_path / f"{CLIPS[0].stem}.npy"
    torch.testing.assert_close(load_mel(file, 100), analysed("vocos", CLIPS[0]))
    np.save(file, with_offset(load_mel(file, 100), CONVENTIONS["vocos"], -7.0)[0].numpy())
    code, said, _ = flowavenet("mel", file, "--mel-convention", "vocos", "--to", "hifigan", "--reference", CLIPS[0])
    assert code == 0 and "7.0 dB below" in said and "--level 7.0 puts that right" in said
    assert "vocos" in flowavenet("mel", "--conventions")[1]
    assert flowavenet("mel")[0] == 2


def test_what_would_exceed_full_scale_is_made_quieter(flowavenet, tmp_path):
    np.save(tmp_path / "loud.npy", analysed("hifigan", DATA / "lj.flac")[..., :120].numpy() + 3.0)
    code, _, complaint = flowavenet("vocode", tmp_path / "loud.npy", "-o", tmp_path, "--mel-convention", "hifigan")
    assert code == 0 and "quieter, to stay below full scale" in complaint
    wave = soundfile.read(tmp_path / "loud.wav")[0]
    assert 0.99 < np.abs(wave).max() <= 1 and (np.abs(wave) > 0.99).sum() < 5


@pytest.mark.skipif(not REAL.is_dir(), reason="the mels of real front-ends, ../shared/mels, are not here")
def test_mels_of_real_front_ends_become_their_speech(flowavenet, tmp_path):
    """With no options. The speech has the energies that the mel asks for, band by band; Griffin-Lim is the control."""
    as_made = {"hifigan_ln": "hifigan", "tacotron2_db4": "rayhane", "tacotron2_hop275": "rayhane_275"}
    for folder, name in as_made.items():
        settings = CONVENTIONS[name]
        spectrogram = MelSpectrogram(settings)
        out = tmp_path / folder
        code, _, complaint = flowavenet("vocode", REAL / folder, "-o", out)
        assert code == 0, complaint
        for file in sorted((REAL / folder).glob("*.npy"))[1::6]:       # speech-mel-00010 is among them
            mel = load_mel(file, 80)
            wave = load_audio(out / f"{file.stem}.wav", 22050)
            assert abs(wave.shape[1] / settings.hop_length - mel.shape[2]) < 2, file
            wave = wave[:, : mel.shape[2] * settings.hop_length]
            noise = torch.randn(1, mel.shape[2] * settings.hop_length) / 100
            asked, ours, control = (
                spectrogram.energies(one)
                for one in (mel, spectrogram(wave), spectrogram(MelMatching(spectrogram)(noise, mel, 12)))
            )
            frames = min(ours.shape[2], asked.shape[2])
            audible = asked[..., :frames] > 10 * asked.min()
            ours, control = (
                20 / settings.power * (made[..., :frames] / asked[..., :frames])[audible].log10() for made in (ours, control)
            )
            apart, apart_control = ((off - off.median()).abs().median().item() for off in (ours, control))
            assert apart < apart_control + 1.5, file                   # dB

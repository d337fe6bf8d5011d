"""Laws of predicted mels: they are of their recordings frame by frame or are refused, and training is given their crops."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import CLIPS
from test_training import arguments, losses

from flowavenet.audio import MelSettings, MelSpectrogram, convention, load_audio, load_mel
from flowavenet.data.corpus import Clip, prepare_corpus, read_corpus
from flowavenet.data.crops import Crops, CropsInMemory, FixedCrops
from flowavenet.data.pairs import SPARE, Pairs, doubts, fitted, places
from flowavenet.training.data import SpeechData
from flowavenet.training.likelihood import LikelihoodTraining

HIFIGAN = MelSettings()
RATE, HOP = HIFIGAN.sample_rate, HIFIGAN.hop_length


def own(path, settings=HIFIGAN):
    return MelSpectrogram(settings)(load_audio(path, RATE))


def predicted(mel):
    """Smooth in time and frequency, as a front-end's."""
    smooth = torch.nn.functional.avg_pool2d(mel[None], 5, 1, 2, count_include_pad=False)[0]
    return (mel + 3 * smooth) / 4


def save(path, mel):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, mel)


@pytest.fixture(scope="module")
def paired(tmp_path_factory):
    """A prepared corpus with mels, of which each frame differs from that of its recording."""
    folder = tmp_path_factory.mktemp("paired")
    for clip in CLIPS:
        (folder / "wavs").mkdir(exist_ok=True)
        shutil.copy(clip, folder / "wavs")
        save(folder / "mels" / f"{clip.stem}.npy", predicted(own(clip)))
    report = prepare_corpus(
        folder / "wavs", folder / "out", RATE, pairs=Pairs(folder / "mels", HIFIGAN), valid_fraction=0.3, seed=1111
    )
    assert report.kept == len(CLIPS) and not report.skipped + report.doubtful
    return folder / "out"


class TestPreparing:
    def test_mels_lie_beside_their_recordings(self, paired):
        for clip in read_corpus(paired):
            mel = np.load(clip.mel)
            assert clip.mel == clip.path.with_suffix(".npy") and mel.dtype == np.float32
            torch.testing.assert_close(torch.from_numpy(mel), predicted(own(clip.path))[0])

    @pytest.mark.parametrize("frames", [-SPARE, -1, 0, 1, 5, SPARE])
    def test_a_few_frames_more_or_fewer_are_repaired(self, frames):
        mel = own(CLIPS[0])
        given = torch.cat([mel, mel[..., :SPARE]], 2)[..., : mel.shape[2] + frames]
        repaired, common = fitted(given, mel), mel.shape[2] + min(0, frames)
        assert repaired.shape == mel.shape
        assert torch.equal(repaired[..., :common], mel[..., :common])
        assert (repaired[..., common:] == mel[..., common - 1 : common]).all()

    @pytest.mark.parametrize("frames", [-SPARE - 1, SPARE + 1])
    def test_more_are_refused_with_both_numbers(self, frames):
        mel = torch.zeros(1, 80, 100)
        with pytest.raises(ValueError, match=f"has {100 + frames} frames, the recording 100"):
            fitted(torch.zeros(1, 80, 100 + frames), mel)

    def test_clips_that_do_not_pair_are_skipped_with_a_reason(self, tmp_path):
        wave, mel = soundfile.read(CLIPS[0])[0], predicted(own(CLIPS[0]))
        other = predicted(own(CLIPS[3]))[..., : mel.shape[2]]                # the longest
        decimal = predicted(own(CLIPS[0], convention("parallel_wavegan")))
        made = {
            "good.npy": mel, "turned.npy": mel[0].T.half(), "two/same.npy": mel, "two/twice.npy": mel, "too/twice.npy": mel,
            "other.npy": other, "decimal.npy": decimal, "early.npy": mel[..., 6:],
            "late.npy": torch.cat([mel[..., :6], mel], 2),
            "bands.npy": mel[:, :79], "long.npy": torch.cat([mel, mel], 2), "nan.npy": mel * float("nan"),
            "slow.npy": torch.nn.functional.interpolate(mel, scale_factor=1.05)[..., : mel.shape[2]],
        }
        for name, value in made.items():
            save(tmp_path / "mels" / name, value)
            (place := tmp_path / "wavs" / Path(name).with_suffix(".wav").name).parent.mkdir(exist_ok=True)
            soundfile.write(place, wave, RATE)
        soundfile.write(tmp_path / "wavs" / "none.wav", wave, RATE)
        report = prepare_corpus(tmp_path / "wavs", tmp_path / "out", RATE, pairs=Pairs(tmp_path / "mels", HIFIGAN))
        reasons = {path.stem: reason for path, reason in report.skipped}
        for name, words in {
            "none": "has no mel: no none.npy", "twice": "two mels", "other": "not of this utterance: it correlates by",
            "decimal": r"another convention, it looks like parallel_wavegan", "early": "does not keep time",
            "late": "does not keep time", "slow": "does not keep time", "bands": "no dimension of 80",
            "long": f"has {2 * mel.shape[2]} frames, the recording {mel.shape[2]}", "nan": "not finite",
        }.items():
            assert words in reasons.pop(name), name
        assert not reasons and [clip.path.stem for clip in read_corpus(tmp_path / "out")] == ["good", "same", "turned"]

    def test_a_small_lag_is_found_and_told(self):
        mel = own(CLIPS[0])
        for lag in (-2, -1, 1, 2):
            moved = torch.roll(predicted(mel), -lag, dims=2)
            assert {place.lag for place in places(moved, mel, 3)} == {lag}
            assert f"{abs(lag)} frames {'early' if lag > 0 else 'late'}" in doubts(moved, mel)[0]
        assert doubts(predicted(mel), mel) == []

    def test_another_level_is_told(self):
        wave = load_audio(CLIPS[0], RATE)
        mel, louder = (MelSpectrogram(HIFIGAN)(gain * wave) for gain in (1, 3))
        assert f"mean {louder.mean():.2f}, the recording's own {mel.mean():.2f}" in doubts(predicted(louder), mel)[0]

    def test_other_conventions_are_converted_and_recordings_follow_their_frames(self, tmp_path):
        """Half a hop between conventions is silence before the recording: then its own mel is the one that was given."""
        given = convention("tacotron2")
        assert given.delay(HIFIGAN) == HOP // 2
        (tmp_path / "wavs").mkdir()
        for clip in CLIPS:
            shutil.copy(clip, tmp_path / "wavs")
            save(tmp_path / "mels" / f"{clip.stem}.npy", own(clip, given))
        pairs = Pairs(tmp_path / "mels", HIFIGAN, given)
        prepare_corpus(tmp_path / "wavs", tmp_path / "out", RATE, pairs=pairs)
        for clip in read_corpus(tmp_path / "out"):
            torch.testing.assert_close(load_mel(clip.mel, 80)[..., 2:-4], own(clip.path)[..., 2:-4], atol=0.02, rtol=0)
        assert pairs.cost().startswith("0.00 dB lost") and "128 samples later" in pairs.cost()

    def test_another_hop_cannot_be_paired(self, tmp_path):
        save(tmp_path / "a.npy", torch.zeros(80, 9))
        with pytest.raises(ValueError, match="hop_length 275"):
            Pairs(tmp_path, HIFIGAN, convention("rayhane_275"))

    def test_from_the_command_line(self, tmp_path, flowavenet):
        save(tmp_path / "mels" / f"{CLIPS[0].stem}.npy", own(CLIPS[0], convention("matcha")))
        for clip in CLIPS[:2]:
            (tmp_path / "wavs").mkdir(exist_ok=True)
            shutil.copy(clip, tmp_path / "wavs")
        words = ["prepare", tmp_path / "wavs", tmp_path / "out", "--mels", tmp_path / "mels"]
        code, _, errors = flowavenet(*words, "--sample-rate", 16000)
        assert code == 2 and "16000" in errors and "22050" in errors
        shutil.copy(tmp_path / "mels" / f"{CLIPS[0].stem}.npy", tmp_path / "mels" / "again.npy")
        shutil.copy(CLIPS[0], tmp_path / "wavs" / "again.flac")
        code, out, errors = flowavenet(*words, "--mels-in", "matcha")
        assert code == 2 and "has no mel" in errors and "1 of 3 files failed" in errors
        assert "mels converted from matcha to hifigan: 0.00 dB lost" in out and "2 clips" in out


def crops(clips, kind=Crops, share=1.0, seed=0):
    return kind(clips, MelSpectrogram(HIFIGAN), 8, seed, -80.0, None, share)


class TestCrops:
    @pytest.mark.parametrize("kind", [Crops, CropsInMemory, FixedCrops])
    def test_the_mel_of_a_crop_is_its_piece_of_the_predicted_mel(self, paired, kind):
        clips = read_corpus(paired)
        data, spectrogram = crops(clips, kind), MelSpectrogram(HIFIGAN)
        for index in range(8):
            item, (clip, start) = data[index], data.draw(index)
            assert start % HOP == 0 and item["predicted"]
            assert torch.equal(item["mel"], load_mel(clips[clip].mel, 80)[0, :, start // HOP : start // HOP + 8])
            padded = item["padded"] if kind is Crops else data.gather(item["start"][None])[0]
            whole = predicted(own(clips[clip].path))[0, :, start // HOP : start // HOP + 8]
            near = predicted(spectrogram.from_padded(padded[None]))[0]
            torch.testing.assert_close(near[:, 2:-2], whole[:, 2:-2], atol=0.05, rtol=0)  # 16 bits, in pauses

    def test_in_memory_they_are_the_same(self, paired):
        clips = read_corpus(paired)
        decoded, kept = crops(clips, share=0.5), crops(clips, CropsInMemory, 0.5)
        for index in range(20):
            one, two = decoded[index], kept[index]
            assert torch.equal(one["mel"], two["mel"]) and one["predicted"] == two["predicted"]

    def test_the_share_is_kept_and_position_decides(self, paired):
        clips = read_corpus(paired)
        data, again = (crops(clips, CropsInMemory, 0.3) for _ in range(2))
        lots = [bool(data[index]["predicted"]) for index in range(200)]
        assert abs(np.mean(lots) - 0.3) < 0.1
        assert lots[::-1] == [bool(again[index]["predicted"]) for index in reversed(range(200))]

    def test_a_clip_shorter_than_a_crop_is_followed_by_silence(self, tmp_path):
        soundfile.write(tmp_path / "short.wav", np.full(3 * HOP, 0.5), RATE)
        save(tmp_path / "short.npy", torch.ones(80, 3))
        mel = crops([Clip(tmp_path / "short.wav", "", "train", 0.03, tmp_path / "short.npy")])[0]["mel"]
        silence = MelSpectrogram(HIFIGAN)(torch.zeros(1, HOP))
        assert mel.shape == (80, 8) and (mel[:, :3] == 1).all()
        torch.testing.assert_close(mel[:, 3:], silence[0].expand(80, 5))


def test_a_step_is_given_predicted_and_own_mels_as_their_share_says(paired):
    module = LikelihoodTraining(name="flowavenet", config={"blocks": 3, "flows": 2, "width": 4})
    data = crops(read_corpus(paired), share=0.5)
    batch = torch.utils.data.default_collate([data[index] for index in range(12)])
    chosen = batch["predicted"]
    assert 0 < chosen.sum() < 12
    wave, mel, _ = module.crops(batch)
    assert wave.shape == (12, 8 * HOP)
    assert torch.equal(mel[chosen], batch["mel"][chosen])
    assert torch.equal(mel[~chosen], MelSpectrogram(HIFIGAN).from_padded(batch["padded"])[~chosen])


def test_resumed_it_is_the_uninterrupted_run_and_validates_on_both_mels(paired, tmp_path):
    from flowavenet.training.fit import fit

    more = ["--data.predicted_share", "0.5", "--checkpoint.every_n_train_steps", "100", "--trainer.val_check_interval", "6"]
    fit(arguments(paired, tmp_path / "run", *more, "--trainer.max_steps", "4", "--trainer.limit_val_batches", "0"))
    more += ["--trainer.max_steps", "6", "--showcase.clips", "1"]
    trainer = fit(arguments(paired, tmp_path / "whole", *more))
    fit(arguments(paired, tmp_path / "run", *more, "--trainer.limit_val_batches", "0", "--ckpt_path", "last"))
    assert losses(tmp_path / "run") == losses(tmp_path / "whole") and len(losses(tmp_path / "whole")) == 6
    scores = {trainer.callback_metrics[f"valid/nats_per_sample{of}"].item() for of in ("", "_own_mels")}
    assert len(scores) == 2


@pytest.mark.parametrize(
    "what, words",
    [("no mels", "4 of 4 clips have no predicted mel"), ("frames", "has 7 frames"), ("convention", "another convention"),
     ("missing", "row 2: no file"), ("share", "predicted_share is 1.5")],
)
def test_a_corpus_that_is_not_paired_is_refused_before_training(corpus, paired, tmp_path, what, words):
    shutil.copytree(paired, tmp_path / "corpus")
    first = sorted((tmp_path / "corpus").glob("*.npy"))[0]
    if what == "frames":
        save(first, torch.zeros(80, 7))
    elif what == "missing":
        first.unlink()
    folder = corpus if what == "no mels" else tmp_path / "corpus"
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        mel = "parallel_wavegan" if what == "convention" else "hifigan"
        SpeechData(str(folder), mel, predicted_share=1.5 if what == "share" else 1.0).setup()
    assert "\n" not in str(caught.value)

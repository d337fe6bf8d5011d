"""A front-end's mels, however they come, make the audio of the whole mel; and nothing goes on that should have ended."""

import gc
import importlib.util
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CLIPS

from flowavenet import MelSpectrogram, Vocoder, load_audio
from flowavenet.audio import convention
from flowavenet.meldetect import identify
from flowavenet.tts import LISTEN, MelAdapter, Runaway

DATA = Path(__file__).parent / "data"
SHARED = Path(os.environ.get("FLOWAVENET_SHARED", Path(__file__).parents[2] / "shared")) / "mels"
REAL = [                                                               # file, its convention, frames per step
    ("tacotron2_db4/speech-mel-00001.npy", "rayhane", 5),
    ("tacotron2_hop275/mel-batch_0_sentence_0.npy", "rayhane_275", 3),
    ("hifigan_ln/fastspeech2.npy", "hifigan", 2),
]
HOW = {"match": 1, "seed": 3, "chunk_frames": 64}
real_mels = pytest.mark.skipif(not SHARED.is_dir(), reason="needs mels of real front-ends")


@pytest.fixture(scope="module")
def vocoder():
    return Vocoder.from_pretrained("lapflow-stream-22k")


@pytest.fixture(scope="module")
def mel():
    """What a Tacotron 2 predicted: (1, 80, 285) float16."""
    return np.load(DATA / "tacotron2.npy")


@pytest.fixture(scope="module")
def analysed():
    """A recording's, whose convention is sure after a while: (1, 80, 210) float32."""
    return MelSpectrogram(convention("hifigan"))(load_audio(DATA / "kerstin.flac", 22050)).numpy()


def cut(mel, *lengths, frames_last=True):
    """A front-end: pieces of these lengths, over and over."""
    start, axis = 0, mel.ndim - 1 if frames_last else mel.ndim - 2
    while start < mel.shape[axis]:
        for length in lengths:
            yield np.take(mel, range(start, min(start + length, mel.shape[axis])), axis=axis)
            start = min(start + length, mel.shape[axis])


def whole(chunks):
    return torch.cat(list(chunks), dim=1)


FORMS = {
    "whole, as it is": lambda mel: mel,
    "whole, as (frames, bands)": lambda mel: mel[0].T,
    "a tensor that requires a gradient": lambda mel: torch.from_numpy(mel).requires_grad_(),
    "read only": lambda mel: np.frombuffer(mel.tobytes(), mel.dtype).reshape(mel.shape),
    "float64": lambda mel: mel.astype(np.float64),
    "one piece in a list": lambda mel: [mel],
    "frame by frame, (bands,)": lambda mel: list(mel[0].T),
    "frame by frame, (1, 1, bands)": lambda mel: (frame[None, None] for frame in mel[0].T),
    "reduction factor 2, (frames, bands)": lambda mel: cut(mel[0].T, 2, frames_last=False),
    "reduction factor 5, (1, bands, frames)": lambda mel: cut(mel, 5),
    "mixed, empty ones as well": lambda mel: cut(mel, 1, 0, 33, 7, 120),
    "pieces as long as there are bands": lambda mel: cut(mel[0].T, 80, frames_last=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_pieces_of_any_form_make_the_audio_of_the_whole(vocoder, mel, form):
    expected = whole(vocoder.stream(torch.from_numpy(mel).float(), **HOW))
    assert torch.equal(whole(MelAdapter(vocoder, "tacotron2")(FORMS[form](mel), **HOW)), expected)


@pytest.mark.parametrize("form", [form for form in FORMS if "bands" in form])
def test_so_they_do_if_nobody_says_what_they_are(vocoder, analysed, form):
    adapter = MelAdapter(vocoder)
    expected = whole(vocoder.stream(torch.from_numpy(analysed), **HOW))
    assert torch.equal(whole(adapter(FORMS[form](analysed), **HOW)), expected)
    assert adapter.source.sure


@pytest.mark.parametrize("name", ["rayhane", "rayhane_275", "parallel_wavegan", "vocos", "matcha"])
def test_conventions_are_converted_in_pieces_as_in_the_whole(vocoder, name):
    settings = convention(name)
    theirs = MelSpectrogram(settings)(load_audio(CLIPS[0], settings.sample_rate)[:, :26000])
    source = identify(theirs, vocoder.settings, name, level_db=1.5)
    expected = whole(vocoder.stream(source(theirs), **HOW))
    adapter = MelAdapter(vocoder, name, level_db=1.5)
    made = whole(adapter(cut(theirs[0].T.numpy(), 2, 13, frames_last=False), **HOW))
    torch.testing.assert_close(made, expected, atol=1e-3, rtol=0)


class Asked:
    """A front-end that knows how many frames it was asked for."""

    def __init__(self, mel, step):
        self.pieces, self.frames = cut(mel, step), 0

    def __iter__(self):
        for piece in self.pieces:
            self.frames += piece.shape[2]
            yield piece


def test_audio_begins_before_the_front_end_is_done(vocoder, mel):
    front_end = Asked(mel, 2)
    next(MelAdapter(vocoder, "tacotron2")(front_end, chunk_frames=8, match=0))
    assert front_end.frames <= 8 + vocoder.receptive_field(0)[1] + 1 < mel.shape[2]


def test_a_front_end_is_listened_to_once_and_no_longer_than_it_takes(vocoder, analysed):
    adapter, needed = MelAdapter(vocoder), 8 + vocoder.receptive_field(0)[1]
    findings = {frames: identify(torch.from_numpy(analysed[..., :frames]), vocoder.settings).detection for frames in LISTEN}
    enough = next(frames for frames in LISTEN if findings[frames].sure)
    for frames in (enough, needed + 1):
        front_end = Asked(analysed, 2)
        next(adapter(front_end, chunk_frames=8, match=0))
        assert needed <= front_end.frames <= frames < analysed.shape[2]
    assert adapter.source.note == ""


def test_what_one_utterance_leaves_open_the_next_may_settle(vocoder, analysed):
    adapter, short = MelAdapter(vocoder), analysed[..., 60:90]
    with pytest.warns(UserWarning, match="taken as hifigan, the vocoder's own, which is not sure.*name their convention"):
        first = whole(adapter(short, **HOW))
    assert adapter.source is None and first.shape[1] == 30 * 256
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert whole(adapter(cut(analysed, 3), **HOW)).shape[1] == analysed.shape[2] * 256
        assert torch.equal(whole(adapter(short, **HOW)), first)
    assert adapter.source.sure


@pytest.mark.filterwarnings("ignore:the front-end's mels")
@pytest.mark.parametrize("frames", [80, 100, 128])
def test_as_many_frames_as_some_have_bands_are_frames(vocoder, analysed, frames):
    mel = analysed[..., :frames]
    expected = whole(vocoder.stream(torch.from_numpy(mel), **HOW))
    for given in (mel[0].T, cut(mel, 7)):
        assert torch.equal(whole(MelAdapter(vocoder)(given, **HOW)), expected)


def test_what_is_not_sure_in_six_seconds_is_settled_all_the_same(vocoder):
    adapter, noise = MelAdapter(vocoder), np.random.default_rng(0).normal(-5, 1, (80, LISTEN[-1])).astype(np.float32)
    with pytest.warns(UserWarning, match="name their convention"):
        whole(adapter(noise, **HOW))
    assert adapter.source is not None and not adapter.source.sure


def test_a_runaway_is_cut_and_told_when_all_audio_is_out(vocoder, mel):
    def runaway():
        try:
            while True:
                yield from cut(mel, 5)
        finally:
            ended.append(True)

    expected = whole(vocoder.stream(torch.from_numpy(mel[..., :172]).float(), **HOW))
    for given in (runaway(), mel):
        ended, chunks = [], []
        with pytest.raises(Runaway, match=r"more than 172 frames, 2 s, and was stopped; shorten the text, or raise longest"):
            for chunk in MelAdapter(vocoder, "tacotron2", longest=2.0)(given, **HOW):
                chunks.append(chunk)
        assert torch.equal(whole(chunks), expected) and ended == [True] * (given is not mel)


def test_an_utterance_as_long_as_allowed_is_no_runaway(vocoder, mel):
    seconds = mel.shape[2] * 256 / 22050
    assert whole(MelAdapter(vocoder, "tacotron2", longest=seconds)(cut(mel, 5), **HOW)).shape[1] == mel.shape[2] * 256


def test_closing_the_audio_stops_the_front_end(vocoder, mel):
    ended = []

    def front_end():
        try:
            yield from cut(mel, 2)
        finally:
            ended.append(True)

    chunks = MelAdapter(vocoder, "tacotron2")(front_end(), chunk_frames=8, match=0)
    next(chunks)
    assert not ended
    chunks.close()
    assert ended


def test_a_front_end_that_fails_says_so_itself_and_the_adapter_lives_on(vocoder, mel):
    def front_end():
        yield mel
        raise RuntimeError("no such phoneme")

    adapter = MelAdapter(vocoder, "tacotron2")
    with pytest.raises(RuntimeError, match="no such phoneme"):
        whole(adapter(front_end(), **HOW))
    assert whole(adapter(mel, **HOW)).shape[1] == mel.shape[2] * 256


@pytest.mark.parametrize(
    "given, said",
    [
        (iter(()), "gave no mel, 0 frames"),
        (np.zeros((80, 0), np.float32), "gave no mel, 0 frames"),
        (None, "gave a NoneType, must be a mel"),
        ("a text", "gave a str, must be a mel"),
        ((torch.zeros(1, 80, 9), torch.zeros(1, 9)), "gave a tuple of 2, must be a mel.*pass the mel alone"),
        (np.zeros((2, 80, 9), np.float32), r"shape \(2, 80, 9\).*one mel at a time"),
        (np.zeros((81, 9), np.float32), r"shape \(81, 9\).*no dimension of 80 bands"),
        (np.zeros((80, 9), np.int64), "gave torch.int64, a mel is floating point"),
        (np.full((80, 9), np.nan, np.float32), "720 of 720 values that are not finite"),
    ],
)
def test_what_is_no_mel_is_refused_in_a_line(vocoder, given, said):
    with pytest.raises(ValueError, match=said) as error:
        next(MelAdapter(vocoder, "tacotron2")(given))
    assert "\n" not in str(error.value)


def test_a_limit_of_nothing_and_an_unknown_convention_are_refused_at_once(vocoder):
    with pytest.raises(ValueError, match="longest is 0 s"):
        MelAdapter(vocoder, longest=0)
    with pytest.raises(ValueError, match="no mel convention is called 'taco'"):
        MelAdapter(vocoder, "taco")


@real_mels
@pytest.mark.parametrize("file, name, step", REAL)
def test_predicted_mels_stream_as_their_front_ends_would(vocoder, file, name, step):
    theirs = np.load(SHARED / file)[..., :120] if name == "hifigan" else np.load(SHARED / file)[:120]
    expected = identify(torch.from_numpy(theirs), vocoder.settings, name)
    expected = whole(vocoder.stream(expected(expected.arrange(torch.from_numpy(theirs))), **HOW))
    made = whole(MelAdapter(vocoder, name)(cut(theirs, step, frames_last=name == "hifigan"), **HOW))
    torch.testing.assert_close(made, expected, atol=1e-3, rtol=0)


@real_mels
def test_a_real_runaway_holds_no_more_late_than_early(vocoder):
    """2890 frames of a Tacotron 2 that did not find the end of its sentence."""
    theirs = np.load(SHARED / "tacotron2_db4/speech-mel-00010.npy")
    samples, held = 0, []
    for chunk in MelAdapter(vocoder, "rayhane")(cut(theirs, 40, frames_last=False), chunk_frames=320, match=0, seed=0):
        samples += chunk.shape[1]
        held.append(sum(one.numel() for one in gc.get_objects() if type(one) is torch.Tensor))
    assert samples == 2890 * 256
    assert held[-2] <= held[1] + 80 * 40


# The recipe: a front-end that is a program, and one that is a model.

RECIPE = Path(__file__).parents[1] / "recipes" / "tts"


@pytest.fixture
def program(monkeypatch, capsys):
    """Run a program of the recipe in this process: (exit code, stderr)."""

    def run(name, *words):
        place = importlib.util.spec_from_file_location(name, RECIPE / f"{name}.py")
        place.loader.exec_module(module := importlib.util.module_from_spec(place))
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, words), "--checkpoint", "lapflow-stream-22k"])
        code = 0
        try:
            module.run(module.main)
        except SystemExit as stop:
            code = stop.code
        return code, capsys.readouterr().err

    monkeypatch.syspath_prepend(str(RECIPE))
    return run


@pytest.mark.skipif(not shutil.which("espeak-ng"), reason="needs espeak-ng")
def test_espeak_ng_speaks_with_the_voice_of_the_vocoder(program, vocoder, tmp_path):
    words = ("Hello world.", "--match", "1", "--chunk", "40", "--seed", "3")
    code, said = program("espeak", *words, "-o", tmp_path / "out.wav", "--original", tmp_path / "original.wav")
    assert code == 0 and "s of audio, the first after" in said
    made, original = (load_audio(tmp_path / name, 22050) for name in ("out.wav", "original.wav"))
    expected = vocoder(vocoder.mel(original), match=1, seed=3)         # analysed in one piece, vocoded in one piece
    torch.testing.assert_close(made, expected.clamp(-1, 1), atol=1e-3, rtol=0)
    code, said = program("espeak", *words, "-o", tmp_path / "cut.wav", "--longest", "0.5")
    assert code == 0 and "warning: the front-end gave more than 43 frames, 0.5 s, and was stopped" in said
    assert load_audio(tmp_path / "cut.wav", 22050).shape[1] == 43 * 256
    code, said = program("espeak", "Hello", "--voice", "none", "-o", tmp_path / "none.wav")
    assert code == 2 and said.startswith("error: espeak-ng made no audio") and said.count("\n") == 1
    assert not (tmp_path / "none.wav").exists()


def test_the_control_has_the_mel_that_it_was_made_of(monkeypatch, speech):
    pytest.importorskip("librosa")
    place = importlib.util.spec_from_file_location("griffin_lim", RECIPE / "griffin_lim.py")
    place.loader.exec_module(module := importlib.util.module_from_spec(place))
    settings = convention("tacotron2")
    mel = MelSpectrogram(settings)(speech)
    again = MelSpectrogram(settings)(module.griffin_lim(mel, settings))[..., 2:-2]
    off = (again - mel[..., 2 : again.shape[2] + 2]).abs().mean()
    assert off < 0.3 < (mel[..., 1:] - mel[..., :-1]).abs().mean()     # nearer than a frame is to the next


class Replay(torch.nn.Module):
    """A front-end that says the same whatever it reads, 5 frames for a symbol: (1, frames, bands), and how far it is."""

    def __init__(self, mel: torch.Tensor):
        super().__init__()
        self.register_buffer("mel", mel)

    def forward(self, ids: torch.Tensor, speed: float, lengths: torch.Tensor):
        return torch.full([1], speed), self.mel[:, : int(5 * lengths)].half()


def torchscript(mel, path):
    torch.jit.script(Replay(mel.transpose(1, 2).contiguous())).save(path)


def onnx_graph(mel, path):
    """The same in ONNX; its mel is (1, bands, frames)."""
    from onnx import TensorProto, helper, numpy_helper, save

    nodes = [
        helper.make_node("Mul", ["lengths", "five"], ["end"]), helper.make_node("Identity", ["speed"], ["same"]),
        helper.make_node("Slice", ["all", "zero", "end", "two"], ["mel"]),
    ]
    inputs = [("ids", TensorProto.INT64, [1, "n"]), ("speed", TensorProto.FLOAT, []), ("lengths", TensorProto.INT64, [1])]
    outputs = [("same", TensorProto.FLOAT, []), ("mel", TensorProto.FLOAT, None)]
    constants = {"zero": np.array([0]), "two": np.array([2]), "five": np.array([5]), "all": mel.numpy()}
    constants = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    infos = [[helper.make_tensor_value_info(*one) for one in several] for several in (inputs, outputs)]
    graph = helper.make_graph(nodes, "replay", *infos, constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.mark.parametrize("export, file", [(torchscript, "front_end.pt"), (onnx_graph, "front_end.onnx")])
def test_an_exported_front_end_speaks(program, vocoder, mel, tmp_path, export, file):
    if export is onnx_graph:
        pytest.importorskip("onnxruntime")
    predicted = torch.from_numpy(mel).float()
    export(predicted, tmp_path / file)
    (tmp_path / "symbols.txt").write_text("_ abc\n")
    words = [tmp_path / file, "abba cab", "--symbols", tmp_path / "symbols.txt", "--convention", "tacotron2"]
    words += ["-o", tmp_path / "out.wav", "--match", "1", "--seed", "3", "--output", "1"]
    given = ["--input", "speed=1.5", "--input", "lengths=length", "--blank", "0"]
    code, said = program("exported", *words, *given)
    assert code == 0, said
    expected = vocoder(predicted[..., : 5 * 17], match=1, seed=3)      # 8 symbols, and 9 blanks around them
    torch.testing.assert_close(load_audio(tmp_path / "out.wav", 22050), expected.clamp(-1, 1), atol=1e-3, rtol=0)
    for wrong, reason in {
        ("--input", "lengths=length"): "wants the input 'speed' as well; add --input speed=NUMBER",
        (*given, "--input", "pace=1"): "has no input 'pace'; its inputs are: speed, lengths",
        (*given, "--output", "7"): "outputs; --output 7 is none of them",
        (*given, "--output", "0"): "the front-end gave",
        ("--input", "speed=fast"): "--input speed=fast is not NAME=NUMBERS",
    }.items():
        code, said = program("exported", *words, *wrong)
        assert code == 2 and said.startswith("error: ") and reason in said and said.count("\n") == 1


@pytest.mark.parametrize("file", ["front_end.onnx", "front_end.pt"])
def test_a_file_that_is_no_front_end_is_refused_in_a_line(program, tmp_path, file):
    for reason in ("no such file", "not a whole"):
        code, said = program("exported", tmp_path / file, "1 2 3", "-o", tmp_path / "out.wav")
        assert code == 2 and f"{file}: {reason}" in said and said.count("\n") == 1
        (tmp_path / file).write_bytes(b"nothing of the kind")

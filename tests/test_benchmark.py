"""The benchmark times real work: its figures belong together, slow work shows, and memory is that of the case alone."""

import json
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import pytest
import torch

import flowavenet.benchmark
from flowavenet import Vocoder, cli
from flowavenet.audio import MelSettings
from flowavenet.benchmark import Report, benchmark, ceiling, load, machine, measure, stream, survey, train
from flowavenet.benchmark.cases import apart
from flowavenet.benchmark.measures import Memory
from flowavenet.models import build, cost

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture
def vocoder(tiny):
    return Vocoder.from_pretrained(tiny)


def slow(vocoder, monkeypatch, seconds):
    """The vocoder, but each synthesis takes so many seconds, a function of its frames."""
    monkeypatch.setattr(vocoder, "forward", lambda mel, **options: time.sleep(seconds(mel.shape[-1])))
    return vocoder


def test_figures_belong_together(vocoder):
    figures = benchmark(vocoder, seconds=0.5, repeats=3, batch=2, match=2)
    assert 0 < figures["rtf_min"] <= figures["rtf"] <= figures["rtf_max"]
    assert figures["khz"] == pytest.approx(22.05 / figures["rtf"])
    assert figures["seconds"] == pytest.approx(0.5, abs=0.01)
    assert figures["weights_m"] == pytest.approx(sum(w.numel() for w in vocoder.model.parameters()) / 1e6)
    assert figures["gflops"] == pytest.approx(2 * figures["gmac_per_second"] / figures["flow_rtf"])
    assert figures["peak_mb"] > figures["work_mb"] >= 0
    assert benchmark(vocoder, seconds=0.5, repeats=2, match=0)["flow_context_frames"] == list(vocoder.receptive_field(0))


def test_slow_work_shows(vocoder, monkeypatch):
    figures = benchmark(slow(vocoder, monkeypatch, lambda frames: 0.25), seconds=0.5, repeats=1)
    assert 0.5 < figures["rtf"] < 1


def test_long_work_is_repeated_less(vocoder, monkeypatch):
    monkeypatch.setattr(flowavenet.benchmark.measures, "PATIENCE", 0.1)
    assert benchmark(slow(vocoder, monkeypatch, lambda frames: 0.1), seconds=0.1, repeats=5)["repeats"] == 2


@pytest.mark.parametrize("bad", [{"seconds": 0}, {"repeats": 0}, {"batch": 0}])
def test_nothing_to_measure_is_an_error(vocoder, bad):
    with pytest.raises(ValueError, match="must all be above 0"):
        benchmark(vocoder, **bad)


def test_stream_figures_belong_together(vocoder):
    figures = stream(vocoder, chunk_frames=8, seconds=0.5, repeats=2, match=2)
    frame = 1000 * 256 / 22050
    assert figures["overhead"] == pytest.approx(figures["rtf"] / figures["rtf_whole"])
    assert figures["chunk_ms"] == pytest.approx(8 * frame)
    assert figures["look_ahead_ms"] == pytest.approx(vocoder.receptive_field(2)[1] * frame)
    assert figures["delay_ms"] == pytest.approx(figures["chunk_ms"] + figures["look_ahead_ms"] + figures["first_ms"])


@pytest.mark.parametrize("name", ["wavenet", "gaussian_iaf"])
def test_models_that_are_sequential_in_one_direction(name):
    model = build(name, {"layers": 1, "width": 4, "gate_width": 4, "skip_width": 4}, 80, 256)
    vocoder = Vocoder(model, MelSettings())
    figures = benchmark(vocoder, 0.05, 1, match=0), stream(vocoder, 2, 0.05, 1, match=0)
    assert all(one["rtf"] > 0 for one in figures)
    json.dumps(figures, allow_nan=False)                               # how far a sample reaches back may be infinite


def test_slow_chunks_show(vocoder, monkeypatch):
    def chunks(mel, chunk_frames, **options):
        for _ in range(mel.shape[-1] // chunk_frames):
            time.sleep(0.05)
            yield

    monkeypatch.setattr(vocoder, "stream", chunks)
    slow(vocoder, monkeypatch, lambda frames: 0.02)
    figures = stream(vocoder, chunk_frames=32, repeats=2, match=0)
    assert 50 <= figures["first_ms"] < 100
    assert figures["rtf"] == pytest.approx(50 / figures["chunk_ms"], rel=0.5)


@pytest.mark.parametrize("precision, constant_memory", [("float32", True), ("bfloat16", False)])
def test_training_steps_leave_the_model_as_it_was(tiny, precision, constant_memory):
    vocoder = Vocoder.from_pretrained(tiny, precision=precision)
    train(vocoder, repeats=1)                                          # now ActNorm is initialised
    before = {key: value.clone() for key, value in vocoder.model.state_dict().items()}
    figures = train(vocoder, batch=2, repeats=1, constant_memory=constant_memory)
    after = vocoder.model.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not vocoder.model.training and not vocoder.model.constant_memory
    assert figures["khz"] == pytest.approx(2 * 15.872 / figures["step_seconds"])
    # weights, gradients, and two averages of AdamW's, four bytes each
    assert figures["kept_mb"] == pytest.approx(16 * figures["weights_m"], rel=0.01)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_ceiling_counts_both_kinds_of_work(precision):
    assert all(gflops > 0 for gflops in ceiling("cpu", precision, seconds=0.01).values())


def test_ceiling_is_the_best_run_of_the_best_way(monkeypatch):
    now, durations = 0.0, {"slow": iter([9.0, 4.0, 5.0]), "fast": iter([8.0, 3.0, 2.0, 6.0])}

    def way(name):
        nonlocal now
        now += next(durations[name])

    monkeypatch.setattr(cost.time, "perf_counter", lambda: now)
    ways = [lambda: way("slow"), lambda: way("fast")]
    assert cost._best(ways, 12.0, torch.device("cpu"), 10.0) == 12.0 / 2.0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a peak")
def test_memory_forgets_what_was_before():
    ballast = torch.ones(100_000_000)                                  # 400 MB
    del ballast
    memory = Memory(torch.device("cpu"))
    assert memory.figures()["work_mb"] < 50
    ballast = torch.ones(50_000_000)
    assert 190 < memory.figures()["work_mb"] < 250
    del ballast


def test_a_case_has_the_memory_of_its_own_process(tiny):
    ballast = torch.ones(200_000_000)                                  # 800 MB here must not count there
    record = apart(
        kind="synthesis", model=str(tiny), device="cpu", precision="float32", seconds=0.2, batch=1, match=0, repeats=1
    )
    del ballast
    assert record["kind"] == "synthesis" and record["model"] == str(tiny)
    assert 100 < record["peak_mb"] < 700


def fake(**case):
    """A machine on which a second of audio takes a tenth of a second."""
    figures = {"rtf": 0.1, "rtf_min": 0.1, "context_frames": [10, 10], "flow_context_frames": [5, 5], "gflops": 5.0}
    figures |= {"hop_length": 256, "sample_rate": 22050, "convolution_gflops": 10.0, "step_seconds": case.get("batch", 1)}
    return case | figures


def test_lengths_with_the_first_batch_and_batches_with_the_first_length(tiny):
    records = list(survey([str(tiny)], precisions=["float32", "bfloat16"], seconds=[2, 1, 8], batches=[1, 4], run=fake))
    assert [record["kind"] for record in records] == ["ceiling"] * 2 + ["synthesis"] * 8
    assert [(r["seconds"], r["batch"]) for r in records[2:6]] == [(1, 1), (2, 1), (2, 4), (8, 1)]
    assert all(record["share"] == 0.5 for record in records[2:])


def test_what_would_take_too_long_is_left_out(tiny):
    records = list(survey([str(tiny)], seconds=[1, 100], chunks=[16], training=[1, 4], limit=10, run=fake))
    out = [(r["kind"], r.get("seconds") or r["batch"]) for r in records if "left_out" in r]
    assert out == [("synthesis", 100), ("training", 4), ("training", 4)]


def test_a_case_without_memory_is_left_out_and_the_rest_goes_on(tiny):
    def run(**case):
        if case.get("batch") == 4:
            raise BrokenProcessPool("a child process terminated abruptly")
        if case.get("batch") == 8:
            raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")
        return fake(**case)

    records = list(survey([str(tiny)], batches=[1, 4, 8, 16], run=run))[1:]
    assert ["memory" in record.get("left_out", "") for record in records] == [False, True, True, False]


@pytest.mark.parametrize("law, low, high", [(lambda n: 5e-4 * n, 0.7, 1.4), (lambda n: 1e-5 * n**2, 3, 6)])
def test_cost_against_length_shows_whether_it_is_linear(vocoder, monkeypatch, law, low, high):
    slow(vocoder, monkeypatch, law)
    report = Report(machine())
    for seconds in (0.5, 1, 2):
        figures = benchmark(vocoder, seconds, 1, match=0)
        report.add({"kind": "synthesis", "model": "m", "device": "cpu", "share": 0, **figures})
    (line,) = report.growth()
    assert low < float(line.split()[-8]) < high, line


@pytest.fixture(scope="module")
def measured(tiny):
    """Real records of every kind, measured in this process."""
    sizes = {"seconds": [0.3, 0.1], "batches": [1, 2], "chunks": [16], "training": [1]}
    quick = survey([str(tiny)], **sizes, match=1, repeats=1, run=measure)
    return [*quick, {"kind": "stream", "model": "large", "chunk_frames": 8, "left_out": "would take about 90 s"}]


def test_every_row_is_said_and_written(measured, tmp_path):
    report = Report(machine(), "flowavenet benchmark", page=tmp_path / "b.md")
    said = "\n".join(line for record in measured for line in report.add(record))
    report.write()
    page, content = (tmp_path / "b.md").read_text(), json.loads((tmp_path / "b.json").read_text())
    assert content["records"] == measured and content["machine"]["threads"] == torch.get_num_threads()
    for record in measured:
        for name, form in (("rtf", ".3g"), ("first_ms", ".1f"), ("step_seconds", ".3g"), ("convolution_gflops", ".0f")):
            if name in record:
                value = format(record[name], form)
                assert value in said and f"| {value} |" in page
    assert "would take about 90 s" in said and "would take about 90 s" in page
    assert report.head() in page and "(b.png)" in page and "(b.json)" in page
    assert (tmp_path / "b.png").read_bytes().startswith(b"\x89PNG")
    rows = [line.count("|") for line in page.splitlines() if line.startswith("|")]
    assert len(rows) == len(measured) - 1 + 2 * 4                      # a head and a rule for each table


def test_a_page_is_written_whole_or_not_at_all(measured, tmp_path, monkeypatch):
    page = tmp_path / "b.md"
    page.write_text("as it was")
    report = Report(machine(), page=page)
    report.add(measured[0])
    monkeypatch.setattr(report, "markdown", lambda *names: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        report.write()
    assert page.read_text() == "as it was" and sorted(file.name for file in tmp_path.iterdir()) == ["b.json", "b.md"]


def test_where_the_report_goes_is_checked_before_the_work(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        Report(machine(), page=tmp_path / "missing" / "b.md")
    with pytest.raises(ValueError, match="call it .*b.md"):
        Report(machine(), page=tmp_path / "b.json")


def test_names_stand_for_checkpoints_models_and_recipes(tiny, tmp_path):
    assert load(str(tiny)).model.config.width == 8
    assert load("lapflow").model.config == load(str(RECIPES / "speech_folder" / "lapflow.yaml")).model.config
    assert load(str(RECIPES / "speech_folder" / "small.yaml")).model.config.conditioning == "pooled"
    for text, message in [
        ("data: 1", "b.yaml: no model in it"), ("just words", "b.yaml: not a recipe"), ("a: [", "b.yaml: not a recipe"),
        ("model: {name: melgan}", "'melgan' is not known"),
        ("model: {name: lapflow, config: {depth: 3}}", "no setting 'depth'"),
    ]:
        (tmp_path / "b.yaml").write_text(text)
        with pytest.raises(ValueError, match=message):
            load(str(tmp_path / "b.yaml"))


def test_verb_prints_and_writes_the_same_figures(tiny, tmp_path, monkeypatch, capsys):
    words = [str(tiny), "--seconds", "0.2", "--stream", "8", "--repeats", "1", "--json", str(tmp_path / "b.json")]
    monkeypatch.setattr(flowavenet.benchmark, "survey", partial(survey, run=measure))
    monkeypatch.setattr(sys, "argv", ["flowavenet", "benchmark", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().out
    assert stop.value.code == 0
    content = json.loads((tmp_path / "b.json").read_text())
    assert [r["kind"] for r in content["records"]] == ["ceiling", "synthesis", "stream", "stream"]
    assert content["command"].startswith(f"flowavenet benchmark {tiny}")
    assert f"{content['records'][1]['rtf']:.3g}" in said


@pytest.mark.parametrize("words, message", [
    (["--device", "cuda:77"], "device 'cuda:77' cannot be used here"),
    (["--precision", "float8"], "precision 'float8' is not known"),
    (["no-such-checkpoint"], "no such checkpoint"),
    (["--report", "no-such-folder/b.md"], "no-such-folder: no such folder"),
])
def test_bad_request_is_one_line(tiny, words, message, monkeypatch, capsys):
    monkeypatch.setattr(flowavenet.benchmark, "survey", partial(survey, run=measure))
    monkeypatch.setattr(sys, "argv", ["flowavenet", "benchmark", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    said = capsys.readouterr().err
    assert stop.value.code == 2 and message in said and said.count("\n") == 1

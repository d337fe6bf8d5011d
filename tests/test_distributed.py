"""However many processes there are, they train as one: from the first batch on, in validation, and when a run goes on.

Processes are forked from one that has imported everything, and find each other by the variables that torchrun sets.
"""

import os
import shutil
import signal
import socket
import sys
import time
from multiprocessing import get_context
from types import SimpleNamespace

import pytest
import torch
from test_training import TINY, losses

from flowavenet import cli
from flowavenet.audio import MelSettings, MelSpectrogram
from flowavenet.data.corpus import read_corpus
from flowavenet.data.crops import FixedCrops, FromPosition

MODELS = {
    "flowavenet": TINY,
    "lapflow": {"bands": 64, "levels": 1, "steps": 1, "layers": 1, "width": 8, "cond_width": 4, "filter_spread": 1},
}
CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["flowavenet.training.fit", "flowavenet.cli", "torch.utils.tensorboard", "pytest"])
STEPS, HALF, CROPS = 6, 3, 4                                           # in all; when some are stopped; of each step


def words(name, corpus, run, processes, *more, crops=CROPS):
    """What to say after ``flowavenet fit`` for a run of so many processes, with the same crops in each step."""
    return [
        *("--model.name", name, "--model.config", str(MODELS[name]).replace("'", '"'), "--model.init_crops", "7"),
        *("--data.corpus", str(corpus), "--data.segment_frames", "8", "--data.batch_size", str(crops // processes)),
        *("--data.workers", "0", "--data.in_memory", "true", "--data.valid_fraction", "0", "--showcase.clips", "0"),
        *("--trainer.default_root_dir", str(run), "--trainer.devices", str(processes), "--trainer.accelerator", "cpu"),
        *("--trainer.strategy", "ddp" if processes > 1 else "auto", "--trainer.precision", "64-true", "--ema.decay", "0.5"),
        *("--trainer.max_epochs", "-1", "--trainer.check_val_every_n_epoch", "null", "--trainer.val_check_interval", "3"),
        *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
        *("--trainer.log_every_n_steps", "1", "--trainer.num_sanity_val_steps", "0", *more),
    ]


def member(rank, processes, port, run, arguments):
    """One process of a run: leaves what it ends with in ``rank<n>.pt``, and what it says in ``rank<n>.txt``."""
    torch.set_num_threads(1)
    if processes > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes),
            "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test",
        }
    from flowavenet.training import callbacks, fit

    callbacks.matrix_product_flops = lambda *_: 1e9                    # takes a while to measure

    def remember(arguments, whole=fit.fit):
        trainer = whole(arguments)
        ends_with = {"average": trainer.lightning_module.model.state_dict(), "scores": dict(trainer.callback_metrics)}
        torch.save(ends_with, run / f"rank{rank}.pt")

    fit.fit = remember
    sys.argv = ["flowavenet", "fit", *arguments]
    with (run / f"rank{rank}.txt").open("w") as said:
        os.dup2(said.fileno(), 2)
        cli.main()


def start(run, processes, arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run.mkdir(exist_ok=True)
    members = [CONTEXT.Process(target=member, args=(rank, processes, port, run, arguments)) for rank in range(processes)]
    for process in members:
        process.start()
    return members


def train(name, corpus, run, processes, steps, *more, crops=CROPS):
    """Train to the end, and tell what each process ended with, and the rest of what the run kept."""
    more = "--trainer.max_steps", str(steps), *more
    members = start(run, processes, words(name, corpus, run, processes, *more, crops=crops))
    for process in members:
        process.join(120)
    assert [process.exitcode for process in members] == [0] * processes, (run / "rank0.txt").read_text()
    ended = [torch.load(run / f"rank{rank}.pt") for rank in range(processes)]
    return ended, torch.load(run / "checkpoints" / "last.ckpt", weights_only=False)


@pytest.fixture(scope="module", params=MODELS)
def whole(request, corpus, tmp_path_factory):
    """The run that others are measured by: its model, its folder, and what one process made."""
    run = tmp_path_factory.mktemp(request.param) / "whole"
    return request.param, run, *train(request.param, corpus, run, 1, STEPS)


@pytest.fixture(scope="module")
def half(whole, corpus):
    """Two processes, stopped half-way, whose activations are computed again on the way back."""
    name, run, *_ = whole
    return run.parent / "half", *train(name, corpus, run.parent / "half", 2, HALF, "--model.constant_memory", "true")


def same(found, expected):
    """Equal up to the rounding of float64, by name."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-6, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}")


def same_everywhere(ended):
    for other in ended[1:]:
        for key, value in ended[0]["average"].items():
            assert torch.equal(other["average"][key], value), key
        assert other["scores"]["valid/nats_per_sample"] == ended[0]["scores"]["valid/nats_per_sample"]


def curve(run):
    return [value for _, value in sorted(losses(run).items())]


def test_two_processes_are_as_one(whole, half):
    _, run, *_ = whole
    folder, ended, checkpoint = half
    assert curve(folder) == pytest.approx(curve(run)[:HALF], rel=1e-6)
    assert len(set(curve(run))) == STEPS
    same_everywhere(ended)


@pytest.mark.parametrize("processes", [1, 4])
def test_a_run_of_two_goes_on_with_any_number(whole, half, corpus, processes):
    name, run, (one,), checkpoint = whole
    folder = run.parent / f"on{processes}"
    shutil.copytree(half[0], folder)
    ended, resumed = train(name, corpus, folder, processes, STEPS, "--ckpt_path", "last")
    assert curve(folder) == pytest.approx(curve(run), rel=1e-6)
    same(resumed["current_model_state"], checkpoint["current_model_state"])
    same(ended[0]["average"], one["average"])
    scores = [{key: value for key, value in end["scores"].items() if key.startswith("valid")} for end in (ended[0], one)]
    same(*scores)
    same_everywhere(ended)


def test_accumulated_gradients_are_those_of_the_whole_step(whole, corpus):
    name, run, (one,), checkpoint = whole
    more = "--trainer.accumulate_grad_batches", "2", "--trainer.val_check_interval", "6"
    ended, accumulated = train(name, corpus, run.parent / "accumulated", 2, STEPS, *more, crops=CROPS // 2)
    same(accumulated["current_model_state"], checkpoint["current_model_state"])
    assert ended[0]["scores"]["valid/nats_per_sample"].item() == pytest.approx(one["scores"]["valid/nats_per_sample"].item())


def test_a_killed_process_ends_the_run(corpus, tmp_path):
    run = tmp_path / "run"
    arguments = words("lapflow", corpus, run, 2, "--trainer.max_steps", "100000", "--checkpoint.every_n_train_steps", "2")
    survivor, victim = start(run, 2, arguments)
    deadline = time.time() + 60
    while not (run / "checkpoints" / "last.ckpt").exists():
        assert survivor.exitcode is None and time.time() < deadline, (run / "rank0.txt").read_text()
        time.sleep(0.02)
    os.kill(victim.pid, signal.SIGKILL)
    survivor.join(30)
    assert survivor.exitcode == 2
    said = [line for line in (run / "rank0.txt").read_text().splitlines() if line.startswith(("Traceback", "error:"))]
    assert len(said) == 1 and "process 0 of 2 lost another one" in said[0] and "--ckpt_path last" in said[0]


@pytest.mark.parametrize("processes", [1, 2, 4, 7])
def test_every_validation_crop_counts_once(corpus, processes):
    crops = FixedCrops(read_corpus(corpus)[:3], MelSpectrogram(MelSettings()), 8, 0, -80.0)
    shares = [crops.share(rank, processes) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1                  # as many steps for each
    counted = []
    for share in shares:
        indices = torch.tensor([int(crops[index]["index"]) for index in share])
        batch, count = crops.counted({"index": indices})
        counted += batch["index"].tolist() if count else []
        assert count == int((indices < len(crops)).sum())
    assert sorted(counted) == list(range(len(crops)))


@pytest.mark.parametrize("processes, crops", [(1, 4), (2, 2), (4, 1), (2, 1)])
def test_crops_of_a_run_are_drawn_in_order_by_any_number_of_processes(processes, crops):
    """Also where a run goes on with larger or smaller steps: nothing is drawn twice or left out."""
    ranks = [list(FromPosition(3, crops, lambda: 20, rank, processes)) for rank in range(processes)]
    steps = [sorted(index for batch in step for index in batch) for step in zip(*ranks, strict=True)]
    assert sum(steps, []) == list(range(20, 20 + 3 * processes * crops))


@pytest.mark.parametrize("strategy", ["fsdp", "ddp_spam"])
def test_strategies_that_do_not_work_are_one_line(flowavenet, corpus, tmp_path, strategy):
    code, _, error = flowavenet("fit", *words("lapflow", corpus, tmp_path, 1, "--trainer.strategy", strategy))
    lines = [line for line in error.splitlines() if line.startswith("error:")]
    assert code == 2 and len(lines) == 1 and strategy in lines[0] and "Traceback" not in error


def test_strategies_that_divide_the_weights_are_refused():
    from pytorch_lightning.strategies import FSDPStrategy

    from flowavenet.training.processes import check_strategy

    with pytest.raises(ValueError, match="FSDPStrategy.* use ddp"):
        check_strategy(SimpleNamespace(strategy=FSDPStrategy()))


def orphan(run):
    """Start a process that waits, and end."""
    from flowavenet.training.processes import end_with_launcher

    watching, begun = os.pipe()
    if os.fork() == 0:
        os.environ["LOCAL_RANK"] = "1"
        with (run / "orphan.txt").open("w") as said:
            os.dup2(said.fileno(), 2)
        end_with_launcher(patience=0.0)
        os.write(begun, b".")
        time.sleep(60)
    os.read(watching, 1)
    os._exit(0)


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    """Also one that waits for something else: it is not left on its device."""
    parent = CONTEXT.Process(target=orphan, args=(tmp_path,))
    parent.start()
    deadline = time.time() + 30
    while not (tmp_path / "orphan.txt").is_file() or not (tmp_path / "orphan.txt").read_text():
        assert time.time() < deadline
        time.sleep(0.05)
    assert (tmp_path / "orphan.txt").read_text().startswith("error: process 1 lost the one that started it")

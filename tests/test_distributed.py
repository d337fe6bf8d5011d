"""Several processes train as one: gradients in constant memory are averaged over them as plain ones are."""

import socket

import pytest
import torch
from conftest import shake
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from flowavenet.models import build

MODELS = {
    "flowavenet": {"blocks": 3, "flows": 2, "width": 8, "blocks_per_split": 2},
    "lapflow": {"bands": 8, "steps": 1, "layers": 1, "width": 8, "cond_width": 4, "filter_spread": 1},
}


def loss_of(model, rows):
    generator = torch.Generator().manual_seed(1)
    wave, mel = torch.randn(4, 256, generator=generator).double() / 10, torch.randn(4, 4, 32, generator=generator).double()
    return -model(wave[rows], mel[rows]).mean()


def make(name):
    torch.manual_seed(0)
    model = shake(build(name, MODELS[name], n_mels=4, hop_length=8).double())
    for module in model.modules():
        if hasattr(module, "initialised"):
            module.initialised.fill_(True)
    return model


def one_process(rank, port, answers):
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    for name in MODELS:
        model = make(name)
        model.constant_memory = True
        parallel = DistributedDataParallel(model)
        loss_of(parallel, slice(2 * rank, 2 * rank + 2)).backward()
        if rank == 0:
            answers.put({key: weight.grad.numpy() for key, weight in model.named_parameters()})
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def gradients():
    """Of every model, as the first of two processes has them; one pair of processes, which take seconds to start."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [context.Process(target=one_process, args=(rank, port, answers)) for rank in range(2)]
    for process in processes:
        process.start()
    got = {name: answers.get(timeout=120) for name in MODELS}
    for process in processes:
        process.join()
    return got


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_two_processes_in_constant_memory_are_those_of_one(name, gradients):
    model = make(name)
    loss_of(model, slice(None)).backward()
    for key, weight in model.named_parameters():
        torch.testing.assert_close(torch.from_numpy(gradients[name][key]), weight.grad, rtol=1e-6, atol=1e-9)

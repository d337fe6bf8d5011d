"""Let several processes train as one: choose strategies that can do that, and end all of them when one ends."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytorch_lightning as pl
import torch
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

GOES_ON = "the same command with --ckpt_path last goes on from the last checkpoint"


def check_strategy(trainer: pl.Trainer) -> None:
    """Refuse strategies that divide the weights among devices, such as FSDP, with a ValueError.

    ActNorm's start and the moving average need whole weights. It is activations that take the memory here, not weights.
    """
    if not isinstance(trainer.strategy, DDPStrategy | SingleDeviceStrategy):
        raise ValueError(
            f"trainer.strategy is {type(trainer.strategy).__name__}, which does not keep whole weights on each device, as "
            f"ActNorm and the moving average need them; use ddp, and --model.constant_memory true if memory is short"
        )


@contextmanager
def explained() -> Iterator[None]:
    """Say in one line what Lightning cannot do here, and that another process of this run has ended."""
    try:
        yield
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
    except RuntimeError as error:
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in str(error):
            raise
        if not torch.distributed.is_initialized():
            raise ConnectionError(f"the processes of this run did not find each other: {error}") from error
        rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()
        raise ConnectionError(f"process {rank} of {processes} lost another one, which ended; {GOES_ON}") from error


def end_with_launcher(patience: float = 10.0) -> None:
    """Have this process end some seconds after the one that started it, if it is one of several on this machine.

    On CPUs (gloo), what waits for a lost process fails at once; on GPUs (NCCL), after a timeout, half an hour by default.
    """
    if "LOCAL_RANK" not in os.environ:
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        time.sleep(patience)                                           # it may find out by itself, and say more
        print(f"error: process {os.environ['LOCAL_RANK']} lost the one that started it; {GOES_ON}", file=sys.stderr)
        os._exit(2)

    threading.Thread(target=watch, daemon=True).start()

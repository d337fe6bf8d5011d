"""How fast a vocoder is on this machine, what memory it takes, and how much of what the machine can do it uses.

``measures`` takes one case, in this process; ``cases`` many, each in a process of its own; ``report`` writes them down.
"""

from flowavenet.benchmark.cases import load, measure, survey
from flowavenet.benchmark.measures import benchmark, ceiling, machine, stream, train
from flowavenet.benchmark.report import Report

__all__ = ["Report", "benchmark", "ceiling", "load", "machine", "measure", "stream", "survey", "train"]

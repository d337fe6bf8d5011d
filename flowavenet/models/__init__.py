"""The models, by name: one paper, one file, one entry here.

>>> from flowavenet.models import MODELS
>>> sorted(MODELS)
['flowavenet', 'gaussian_iaf', 'lapflow', 'lapflow2', 'parallel_wavenet', 'waveflow', 'waveglow', 'wavenet']
"""

from flowavenet.files import short
from flowavenet.models.base import FlowConfig, FlowVocoder, frame_sums
from flowavenet.models.clarinet import GaussianIAF
from flowavenet.models.flowavenet import FloWaveNet, FloWaveNetConfig
from flowavenet.models.iaf import IAF, IAFConfig
from flowavenet.models.lapflow import Lapflow, LapflowConfig
from flowavenet.models.lapflow2 import Lapflow2, Lapflow2Config
from flowavenet.models.parallel_wavenet import ParallelWaveNet, ParallelWaveNetConfig
from flowavenet.models.plausible import WEIGHTS, at_most, check_types
from flowavenet.models.waveflow import WaveFlow, WaveFlowConfig
from flowavenet.models.waveglow import SQUEEZEWAVE_128_256, WaveGlow, WaveGlowConfig
from flowavenet.models.wavenet import WaveNet, WaveNetConfig

MODELS: dict[str, type[FlowVocoder]] = {
    "flowavenet": FloWaveNet,
    "gaussian_iaf": GaussianIAF,
    "lapflow": Lapflow,
    "lapflow2": Lapflow2,
    "parallel_wavenet": ParallelWaveNet,
    "waveflow": WaveFlow,
    "waveglow": WaveGlow,
    "wavenet": WaveNet,
}
"""The only registry: checkpoints, recipes and the command line find a model's class here."""


def build(name: str, config: dict, n_mels: int, hop_length: int, weights: int = WEIGHTS) -> FlowVocoder:
    """Build the model ``name`` from a plain dict of its Config's fields, of at most so many weights.

    Raises ValueError, in one line, for a name or a field that is not known, and for values that make no model.
    """
    if not isinstance(name, str) or name not in MODELS:
        raise ValueError(f"model {short(name)} is not known; known are: {', '.join(sorted(MODELS))}")
    cls = MODELS[name]
    fields = set(cls.Config.__dataclass_fields__)
    if not isinstance(config, dict):
        raise ValueError(f"{name}: its config is {short(config)}, must be settings by name")
    if unknown := [short(key) for key in config if key not in fields]:
        raise ValueError(f"{name} has no setting {', '.join(unknown[:3])}; it has: {', '.join(sorted(fields))}")
    check_types(name, cls.Config, config)
    try:
        with at_most(weights):
            return cls(cls.Config(**config), n_mels, hop_length)
    except (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError) as error:  # what such sizes lead to
        reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
        raise ValueError(f"{name} cannot be made of these settings ({reason}); correct them") from error


__all__ = [
    "IAF", "MODELS", "SQUEEZEWAVE_128_256", "FloWaveNet", "FloWaveNetConfig", "FlowConfig", "FlowVocoder",
    "GaussianIAF", "IAFConfig", "Lapflow", "Lapflow2", "Lapflow2Config", "LapflowConfig", "ParallelWaveNet",
    "ParallelWaveNetConfig", "WaveFlow", "WaveFlowConfig", "WaveGlow", "WaveGlowConfig", "WaveNet", "WaveNetConfig",
    "build", "frame_sums",
]

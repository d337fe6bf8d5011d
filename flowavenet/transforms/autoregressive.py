"""Autoregression: change every sample, or every row of samples, given those before it.

In one direction all samples are changed at once, since all that is read is there; in the other they come one after the
other. A WaveNet goes from audio to noise at once and samples slowly; :class:`~flowavenet.transforms.Inverse` of the same
transform, an inverse autoregressive flow, samples at once. WaveFlow stands between: it squeezes the waveform into a picture
and goes row by row, each row at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowavenet.transforms.base import State, Transform
from flowavenet.transforms.heads import Head


class Autoregressive(Transform):
    """Make each sample noise by the distribution that is expected of it, given the samples before it.

    z_t = head(x_t; p_t),  p_t = net(x_0 ... x_{t-1}, cond_0 ... cond_{t-1});  log_det = that of the head

    Nothing comes before the first sample: its parameters are learned. The inverse is recurrent: its :class:`State` holds
    the samples of the window that are final, and the net's own memory after them. The nats of the inverse are those of the
    samples that it drew, not of those that it remembered.

    Args:
        net: a causal net that maps (batch, time, head.channels) and ``cond``, on the time grid of ``x``, to
            (batch, time, head.size). Its ``steps()`` give the same step by step, as those of
            :class:`~flowavenet.nets.WaveNet` do.
        head: the distribution of a sample.

    Shape: x (batch, 1, time).
    van den Oord et al., "WaveNet", 2016, arXiv:1609.03499; Papamakarios, Pavlakou, Murray, "Masked autoregressive flow for
    density estimation", 2017, arXiv:1705.07057.
    """

    def __init__(self, net: nn.Module, head: Head):
        super().__init__((0, 0), (net.receptive_field[0] + 1, 0))
        self.net = net
        self.head = head
        self.first = nn.Parameter(head.start()[None, :, None])

    def predict(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Return the head's parameters for every sample: (batch, time, head.size)."""
        after = self.net(self.head.read(x.squeeze(1)), cond)[:, :-1]
        first = self.first.transpose(1, 2).to(after.dtype).expand(x.shape[0], -1, -1)      # len() would fix the batch
        return torch.cat([first, after], dim=1)

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        parameters, x = self.predict(x, cond), x.squeeze(1)
        z = self.head.to_noise(x, parameters)
        return z.to(x.dtype).unsqueeze(1), self.head.log_slope(x, z, parameters)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        time = z.shape[-1]
        known, sampler, stop = z.new_zeros(len(z), 0), Sampler(self), time
        if state is not None:
            stop = min(time, state.final)
            if self in state.memory:
                first, known, sampler = state.memory[self]
                known = known[:, state.first - first :]
        done = known.shape[1]
        drawn, log_det = sampler(z[:, 0, done:stop], None if cond is None else cond[:, done:stop])
        wave = torch.cat([known, drawn, z.new_zeros(len(z), time - max(done, stop))], dim=1)
        if state is not None:
            state.memory[self] = state.first, wave[:, : max(done, stop)], sampler
        zeros = log_det.new_zeros(len(z), done), log_det.new_zeros(len(z), time - max(done, stop))
        return wave.unsqueeze(1), torch.cat([zeros[0], log_det, zeros[1]], dim=1)


class Sampler:
    """Draw a signal sample after sample, in as many pieces as one likes: each call goes on where the last one ended.

    Args:
        transform: whose inverse is computed, with its weights as they are now.
    """

    def __init__(self, transform: Autoregressive):
        self.head, self.steps = transform.head, transform.net.steps()
        self.next = transform.first[..., 0]

    def __call__(self, z: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next piece of the signal and its log-det, (batch, time) each, from its noise and its conditioning."""
        if z.shape[1] == 0:
            return z, z.new_zeros(z.shape, dtype=self.next.dtype)
        head, samples, parameters = self.head, [], []
        self.steps.condition(cond)
        following = self.next.to(z.dtype).expand(len(z), -1)
        for noise in z.split(1, dim=1):
            parameters.append(following.unsqueeze(1))
            samples.append(head.from_noise(noise, parameters[-1]).to(z.dtype))
            following = self.steps(head.read(samples[-1])[:, 0])
        self.next = following
        x = torch.cat(samples, dim=1)
        return x, -head.log_slope(x, z, torch.cat(parameters, dim=1))


class RowAutoregressive(Transform):
    """Scale and shift each channel by parameters read off the channels before it.

    z_0 = x_0;  z_r = x_r * exp(log_scale_r) + shift_r  for r >= 1;  log_det = sum(log_scale)
    shift_r, log_scale_r = net(x_0 ... x_{r-1}, cond)

    With :class:`~flowavenet.transforms.Squeeze` around it, a channel is a row of a picture: every ``net.rows``-th sample.
    The forward direction changes all rows at once, the inverse takes as many steps as there are rows, each for all columns.

    Args:
        net: maps (batch, time, rows) and ``cond`` to the shifts, then the log-scales, of all rows but the first:
            (batch, time, 2 * (rows - 1)). Its ``steps(cond)`` gives the same for one row after the other, as in
            :class:`~flowavenet.nets.RowNet`.

    Ping, Peng, Zhao, Song, "WaveFlow: a compact flow-based model for raw audio", ICML 2020, arXiv:1912.01219.
    """

    def __init__(self, net: nn.Module):
        # each row reaches as far again around what the row above it has reached
        super().__init__([side * (net.rows - 1) for side in net.receptive_field], net.receptive_field)
        self.net = net

    def forward(self, x: Tensor, cond: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift, log_scale = self._shift_and_log_scale(x, cond)
        z = x[:, 1:] * torch.exp(log_scale) + shift
        return torch.cat([x[:, :1], z.to(x.dtype)], dim=1), log_scale.sum(dim=1)

    def inverse(self, z: Tensor, cond: Tensor | None = None, state: State | None = None) -> tuple[Tensor, Tensor]:
        first, *others = z.unbind(dim=1)
        steps, rows, log_det = self.net.steps(cond), [first], 0
        for row in others:
            shift, log_scale = steps(rows[-1].unsqueeze(-1)).unbind(-1)
            rows.append(((row - shift) * torch.exp(-log_scale)).to(z.dtype))
            log_det = log_det - log_scale
        return torch.stack(rows, dim=1), log_det

    def log_factors(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Return the logarithm of dz/dx of every changed element: (batch, rows - 1, time)."""
        return self._shift_and_log_scale(x, cond)[1]

    def _shift_and_log_scale(self, x: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.net(x.transpose(1, 2), cond).transpose(1, 2).chunk(2, dim=1)

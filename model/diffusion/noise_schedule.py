"""Implements a base's noise schedule and prediction types, and draws timesteps for training.

    z_t = √ᾱ_t z_0 + √(1 − ᾱ_t) ε

A base predicts ε, v = √ᾱ_t ε − √(1 − ᾱ_t) z_0, or z_0 itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from service.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class NoiseSchedule:
    """ᾱ_t of the base's scheduler, `(T,)`, and what the base predicts ("epsilon", "v_prediction" or "sample")."""

    alphas_cumprod: Tensor
    prediction_type: str

    @classmethod
    def from_config(cls, config: dict[str, Any], device: torch.device | str = "cpu") -> NoiseSchedule:
        """Read a base's scheduler configuration, including zero terminal SNR.

        Args:
            device: device of most calls; for other devices ᾱ is copied at every call.

        Raises:
            UsageError: if the prediction type is none of the three.
        """
        scheduler = DDPMScheduler.from_config(config)
        kind = scheduler.config.prediction_type
        if kind not in {"epsilon", "v_prediction", "sample"}:
            raise UsageError(f"the base's scheduler predicts {kind!r}; it must be epsilon, v_prediction or sample")
        return cls(scheduler.alphas_cumprod.to(device), kind)

    @property
    def steps(self) -> int:
        """Number of timesteps T."""
        return len(self.alphas_cumprod)

    def _scales(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha = self.alphas_cumprod.to(like.device)[timesteps].view(*timesteps.shape, *[1] * 3)
        return alpha.sqrt().to(like.dtype), (1 - alpha).sqrt().to(like.dtype)

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Compute z_t of `(…, B, C, h, w)` latents at timesteps `(B,)`."""
        signal, spread = self._scales(timesteps, latents)
        return signal * latents + spread * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Compute what the base should predict for z_t."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return latents
        signal, spread = self._scales(timesteps, latents)
        return signal * noise - spread * latents

    def predict_clean(self, noisy: Tensor, prediction: Tensor, timesteps: Tensor) -> Tensor:
        """Compute the z_0 that a prediction at z_t implies."""
        signal, spread = self._scales(timesteps, noisy)
        if self.prediction_type == "epsilon":
            return (noisy - spread * prediction) / signal.clamp_min(1e-4)
        if self.prediction_type == "sample":
            return prediction
        return signal * noisy - spread * prediction

    def prediction_of(self, noisy: Tensor, clean: Tensor, timesteps: Tensor) -> Tensor:
        """Compute the prediction at z_t that implies `clean` as z_0: the inverse of `predict_clean`."""
        if self.prediction_type == "sample":
            return clean
        signal, spread = self._scales(timesteps, noisy)
        noise = (noisy - signal * clean) / spread.clamp_min(1e-4)
        if self.prediction_type == "epsilon":
            return noise
        return signal * noise - spread * clean


def draw_timesteps(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """Draw `count` timesteps, one in each of `count` equal bands of [0, steps), so that batches differ less."""
    bands = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    order = torch.randperm(count, generator=generator)
    return (bands * steps).long().clamp_max(steps - 1)[order]

"""TrainSettings: the settings of a training run.

This module does not import torch, so that ``--help`` and errors are shown immediately.
"""

from dataclasses import asdict, dataclass
from typing import Any

from climbstream.loader.core.errors import UsageError

from .base_model import hash_model

_LANES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """Settings of a training run, without its shards, mixture and seed."""

    tokens: int
    """Number of tokens to train on, rounded down to whole steps."""
    model: str = "tiny"
    seq_len: int = 64
    """Tokens per row. Rows are short so that a few tokens are enough for many steps
    (docs/decisions/proxies.md)."""
    batch_rows: int = 8
    learning_rate: float = 8e-3
    warmup: float = 0.05
    """Fraction of the steps, at the start, over which the learning rate rises."""
    decay: float = 0.4
    """Fraction of the steps, at the end, over which the learning rate falls to zero."""
    average: float = 0.0
    """Fraction of the steps, at the end, over which the model parameters are averaged. 0 keeps the
    parameters of the last step."""
    part: float = 1.0
    """Fraction of each cluster that the run reads; every epoch has the same rows. See ``fraction``
    of `MixtureLoader`."""
    lanes: int = _LANES
    """Number of lanes (virtual ranks) of the loader. The run can be started or resumed only with a
    number of ranks that divides this number."""
    base: str | None = None
    """Folder of a model in Hugging Face's format, from which training continues. The size of this
    model replaces ``model``. None starts from random parameters."""

    def __post_init__(self) -> None:
        for name in ("seq_len", "batch_rows", "learning_rate", "lanes"):
            if not (value := getattr(self, name)) > 0:
                raise UsageError(f"{name} is {value}; it must be more than 0")
        if not 0 <= self.average <= 1:
            raise UsageError(
                f"average is {self.average}; it must be a fraction of the steps, 0 to 1"
            )
        if self.steps < 1:
            raise UsageError(
                f"{self.tokens:,} tokens are less than one step of {self.batch_rows} rows of "
                f"{self.seq_len}; give {self.batch_rows * self.seq_len:,} or more"
            )

    @property
    def steps(self) -> int:
        """Number of optimizer steps of the run."""
        return self.tokens // (self.seq_len * self.batch_rows)

    def rate(self, step: int) -> float:
        """Return the factor of the learning rate at ``step`` (from 0), a number from 0 to 1."""
        rise = (step + 1) / max(1.0, self.warmup * self.steps)
        fall = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, rise, fall)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values; a base model is replaced by its hash."""
        values = asdict(self)
        if self.lanes == _LANES:
            del values["lanes"]  # files of earlier versions do not have this setting
        return values | {"base": None if self.base is None else hash_model(self.base)}

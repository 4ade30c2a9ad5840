"""Settings: what decides a run, and what decides a search over proxies.

Neither needs torch, so that ``--help`` and a mistake are answered at once.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from climbstream.loader import Manifest, Mixture
from climbstream.loader.core.errors import UsageError
from climbstream.search.optimizer.constraints import Group, epoch_caps

from .base_model import hash_model


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """What decides a run, apart from shards, mixture and seed."""

    tokens: int
    """Trained on in all; the last whole step ends at or before it."""
    model: str = "tiny"
    seq_len: int = 64
    """Short, so that few tokens make many steps: see docs/decisions.md."""
    batch_rows: int = 8
    learning_rate: float = 8e-3
    warmup: float = 0.05
    """Part of the steps in which the rate rises."""
    decay: float = 0.4
    """Part of the steps in which it falls to zero."""
    average: float = 0.0
    """Part of the steps, the last ones, over whose weights the mean is taken; 0 keeps the end."""
    part: float = 1.0
    """Of each cluster that the run sees, again and again; see `MixtureLoader`."""
    base: str | None = None
    """Folder of a model to go on from, as Hugging Face keeps it, which decides the size; None:
    fresh weights."""

    def __post_init__(self) -> None:
        for name in ("seq_len", "batch_rows", "learning_rate"):
            if not (value := getattr(self, name)) > 0:
                raise UsageError(f"{name} is {value}; it must be more than 0")
        if not 0 <= self.average <= 1:
            raise UsageError(f"average is {self.average}; it is a part of the steps, 0 to 1")
        if self.steps < 1:
            raise UsageError(
                f"{self.tokens:,} tokens are less than one step of {self.batch_rows} rows of "
                f"{self.seq_len}; give {self.batch_rows * self.seq_len:,} or more"
            )

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        return self.tokens // (self.seq_len * self.batch_rows)

    def rate(self, step: int) -> float:
        """Return the part of the learning rate that step ``step``, from 0, has."""
        rise = (step + 1) / max(1.0, self.warmup * self.steps)
        fall = (self.steps - step) / max(1.0, self.decay * self.steps)
        return min(1.0, rise, fall)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values: of a base its hash, wherever it lies."""
        values = asdict(self)
        return values | {"base": None if self.base is None else hash_model(self.base)}


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """What decides a search over proxies, apart from shards and targets."""

    budget: int = 112
    preset: str = "robust"
    proxy: TrainSettings
    seed: int = 0
    final_tokens: int | None = None
    """Tokens of the run that the mixture is for. Proxies then see as much less of each cluster as
    they are shorter, so they repeat it as often; and weights have a cap. None: neither."""
    max_epochs: float = 4.0
    """How often that run may repeat a cluster: with final_tokens, a cap on its weight."""
    confirm: int = 0
    """Seeds with which the candidates for the answer are run again; see `Search`, as for these:"""
    prior: Mixture | None = None
    """None for the token shares."""
    min_weight: Mapping[str, float] = field(default_factory=dict)
    max_weight: Mapping[str, float] = field(default_factory=dict)
    pinned: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    allowed: Mapping[str, float] = field(default_factory=dict)

    def caps(self, manifest: Manifest) -> dict[str, float]:
        """Largest weight of each cluster."""
        tokens = {cluster.name: cluster.tokens for cluster in manifest.clusters}
        caps = epoch_caps(tokens, self.final_tokens, self.max_epochs)
        return caps | {n: min(w, caps.get(n, 1.0)) for n, w in self.max_weight.items()}

    def rehearsal(self) -> TrainSettings:
        """Return the settings of a proxy that repeats clusters as often as the final run will."""
        if self.final_tokens is None or self.final_tokens <= self.proxy.tokens:
            return self.proxy
        return replace(self.proxy, part=self.proxy.tokens / self.final_tokens)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        own = ("proxy", "prior")
        return {
            **{name: getattr(self, name) for name in self.__slots__ if name not in own},
            "prior": self.prior and self.prior.weights,
            "proxy": self.proxy.to_json(),
        }

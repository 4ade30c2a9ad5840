"""Settings of a search over trained proxies: small models, each trained on one mixture."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from climbstream.loader import Manifest, Mixture
from climbstream.search.optimizer.constraints import Group, epoch_caps
from climbstream.search.training.settings import TrainSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSettings:
    """Settings of a search over proxies, without its shards and targets."""

    budget: int = 112
    preset: str = "robust"
    proxy: TrainSettings
    seed: int = 0
    final_tokens: int | None = None
    """Number of tokens of the final run, for which the mixture is searched.

    If the number is given, each proxy reads only a fraction of each cluster: its own number of
    tokens divided by this number. So a proxy repeats clusters as often as the final run will, and
    `max_epochs` limits the weights. If the number is None, proxies read the whole clusters, and
    `max_epochs` has no effect."""
    max_epochs: float = 4.0
    """Largest number of epochs of a cluster in the final run."""
    confirm: int = 0
    """``confirm`` and the fields below it are arguments of `Search` with the same names."""
    prior: Mixture | None = None
    min_weight: Mapping[str, float] = field(default_factory=dict)
    max_weight: Mapping[str, float] = field(default_factory=dict)
    pinned: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[str, Group] = field(default_factory=dict)
    importance: Mapping[str, float] = field(default_factory=dict)
    allowed: Mapping[str, float] = field(default_factory=dict)

    def caps(self, manifest: Manifest) -> dict[str, float]:
        """Return the largest weight of each cluster, by name.

        It is the smaller of two limits: the weight that `max_epochs` allows, and the one in
        `max_weight`.
        """
        tokens = {cluster.name: cluster.tokens for cluster in manifest.clusters}
        caps = epoch_caps(tokens, self.final_tokens, self.max_epochs)
        return caps | {n: min(w, caps.get(n, 1.0)) for n, w in self.max_weight.items()}

    def rehearsal(self) -> TrainSettings:
        """Return ``proxy``, changed so that clusters repeat as often as in the final run."""
        if self.final_tokens is None or self.final_tokens <= self.proxy.tokens:
            return self.proxy
        return replace(self.proxy, part=self.proxy.tokens / self.final_tokens)

    def search_arguments(self, manifest: Manifest) -> dict[str, Any]:
        """Return the arguments of `Search` that these settings decide, except the prior."""
        ours = ("proxy", "final_tokens", "max_epochs", "prior")
        shared = {name: getattr(self, name) for name in self.__slots__ if name not in ours}
        return shared | {"max_weight": self.caps(manifest)}

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        own = ("proxy", "prior")
        return {
            **{name: getattr(self, name) for name in self.__slots__ if name not in own},
            "prior": self.prior and self.prior.weights,
            "proxy": self.proxy.to_json(),
        }

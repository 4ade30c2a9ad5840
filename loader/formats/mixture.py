"""Mixture: the share of the tokens that comes from each cluster."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from numbers import Real
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.console import counted
from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import COPY_FIRST, hash_json, read_json, refuse_url, write_json
from climbstream.loader.core.tabular import Tabular
from climbstream.loader.core.typed import check_version, parse_json, short
from climbstream.loader.storage.hub import hub_url, pin, put_file
from climbstream.loader.storage.store import Store

ONE = 1 << 40
"""Sum of integer weights, so the integer that stands for a weight of 1. It is large enough for a
precision of 1e-12, and small enough that ``ONE`` times the rows of a batch fits into an int64."""
MIXTURE = "mixture.json"
_MOST_BYTES = 1 << 24
_LARGEST = 1e100
"""Largest weight that is accepted, so that every sum of weights is finite."""
OTHERS = ("scale", "keep")
"""Values of the argument ``others``; see `read_weights`."""
_ROUNDED = 1e-4
"""Largest accepted difference from 1 of a sum of weights; users may have rounded the weights."""
_ROUNDING = 1e-9
"""Largest rest, 1 minus the sum of named weights, that counts as no rest for other clusters."""


@dataclass(frozen=True, slots=True)
class Mixture(Tabular):
    """Weights of clusters by name, which sum to 1; a cluster that is not named has weight 0.

    `Mixture.of` accepts any non-negative finite numbers, and scales them to sum 1.

    >>> Mixture.of({"c00": 3, "c01": 1}).weights
    {'c00': 0.75, 'c01': 0.25}
    >>> Mixture.of({"c00": 2, "c01": 1, "c02": 0})
    Mixture(c00 66.7%, c01 33.3%; 3 clusters)
    """

    weights: dict[str, float]
    """Share of the tokens of each cluster, by name."""
    about: dict[str, Any] = field(default_factory=dict, compare=False)
    """Where the mixture comes from, as JSON values; for example, how it was found, and for which
    shards."""

    version = 1

    def __post_init__(self) -> None:
        check_weights(self.weights)
        total = math.fsum(self.weights.values())
        if abs(total - 1) > 1e-9:
            raise InvalidDataError(
                f"the weights of a mixture must sum to 1, and these sum to {total:.6g}; use "
                "Mixture.of to scale them"
            )

    def __repr__(self) -> str:
        largest = self._by_weight()
        shares = [f"{name} {weight:.1%}" for name, weight in largest if weight]
        return f"Mixture({some_names(shares)}; {counted(len(largest), 'cluster')})"

    def _repr_html_(self) -> str:
        """Return the mixture as an HTML table; notebooks show it."""
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td style='text-align:right'>{weight:.2%}</td>"
            f"<td><div style='background:#4a7fb5;height:.8em;width:{200 * weight:.0f}px'></div>"
            "</td></tr>"
            for name, weight in self._by_weight()
        )
        return f"<table><tr><th>cluster</th><th>weight</th><th></th></tr>{rows}</table>"

    def _by_weight(self) -> list[tuple[str, float]]:
        """Return names and weights, the largest weight first."""
        return sorted(self.weights.items(), key=lambda item: -item[1])

    @classmethod
    def of(cls, weights: Mapping[str, float], about: Mapping[str, Any] | None = None) -> Self:
        """Return a mixture of ``weights``, which may have any sum; they are scaled to sum 1.

        Raises:
            InvalidDataError: A weight is negative or not finite, or all are zero.
        """
        check_weights(weights)
        total = math.fsum(weights.values())
        # Weights that already sum to 1 are not changed, not even in the last bit.
        scale = 1.0 if abs(total - 1) <= 1e-12 else total
        return cls({name: float(w) / scale for name, w in weights.items()}, dict(about or {}))

    @classmethod
    def uniform(cls, names: Sequence[str]) -> Self:
        """Return the mixture in which every cluster in ``names`` has the same weight."""
        return cls.of(dict.fromkeys(names, 1.0))

    def array(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Return the weights in the order of ``names``: float64 ``[len(names)]``, sum 1.

        Raises:
            InvalidDataError: The mixture has a weight for a cluster that is not in ``names``.
        """
        clusters = set(names)
        unknown = [n for n, w in self.weights.items() if w > 0 and n not in clusters]
        if unknown:
            raise InvalidDataError(
                f"the mixture gives weight to {some_names(unknown)}, "
                f"but the clusters are {some_names(list(names))}"
            )
        return np.array([self.weights.get(n, 0.0) for n in names], np.float64)

    def integers(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return integer weights in the order of ``names``: int64 ``[len(names)]``, sum `ONE`.

        Weights are rounded by the method of the largest remainder. A weight of 0 stays 0, and a
        positive weight is never rounded to 0.

        Raises:
            InvalidDataError: The mixture has a weight for a cluster that is not in ``names``.
        """
        return integer_weights(self.array(names))

    @property
    def fingerprint(self) -> str:
        """Hash of the weights above 0; it does not depend on ``about``."""
        return hash_json({n: w for n, w in self.weights.items() if w > 0})

    def to_json(self) -> dict[str, Any]:
        """Return the mixture as JSON values."""
        return {"version": self.version, "weights": self.weights, "about": self.about}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the value that `to_json` returned, or a JSON object of weights by name.

        Raises:
            InvalidDataError: ``value`` is neither of these, or a weight is invalid.
        """
        if isinstance(value, dict) and "weights" in value:
            value = check_version(value, cls.version, "mixture")
            about = value.get("about")
            if not isinstance(about, dict | None):
                raise InvalidDataError(
                    f"'about' of a mixture must be an object, not {short(about)}"
                )
            return cls.of(value["weights"], about)
        return cls.of(value)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one row per cluster, with ``cluster`` and ``weight``; the largest weight first."""
        return [{"cluster": name, "weight": weight} for name, weight in self._by_weight()]

    def save(self, path: str | Path) -> None:
        """Write the mixture to ``path`` as JSON."""
        write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a mixture from a JSON file, or from a data set on the Hugging Face Hub.

        ``path`` is the path of the file, or ``hf://OWNER/NAME``; for the latter, see `from_hub`.

        Raises:
            InvalidDataError: The file is missing, or is no mixture.
            UsageError: ``path`` is a folder or another URL.
        """
        if isinstance(path, str) and path.startswith("hf://"):
            return cls.from_hub(path)
        if not isinstance(path, str | Path):
            raise UsageError(
                f"a mixture is read from the path of a file, not from {short(path)}; use "
                "Mixture.of for weights by name"
            )
        refuse_url(path, f"{COPY_FIRST}, or name a data set of the Hub, hf://OWNER/NAME")
        path = Path(path)
        if path.is_dir():
            inside = path / MIXTURE
            raise UsageError(
                f"{path} is a folder, and a mixture is a file; "
                + (f"name {inside}" if inside.exists() else f"climb search leaves one, {MIXTURE}")
            )
        try:
            value = read_json(path)
            if isinstance(value, dict) and isinstance(value.get("mixture"), dict):
                raise InvalidDataError(
                    "this is the result of a search, and not a mixture; name "
                    f"{path.parent / MIXTURE}"
                )
            return cls.from_json(value)
        except InvalidDataError as error:
            raise InvalidDataError(f"{path}: {error}") from None

    @classmethod
    def from_hub(cls, repo: str) -> Self:
        """Read the mixture of data set ``repo`` on the Hugging Face Hub.

        ``repo`` is ``OWNER/NAME`` or ``OWNER/NAME@REVISION``.

        Raises:
            InvalidDataError: The data set has no mixture.
            RemoteError: The data set is missing or private; or the Hub refused, did not answer, or
                cannot be reached.
            UsageError: ``repo`` is no name of a data set, or HF_HUB_OFFLINE is set.
        """
        store = Store.of(hub_url(repo))
        try:
            data = store.read(MIXTURE, _MOST_BYTES)
        except FileNotFoundError:
            pin(hub_url(repo))  # raises if the whole data set is missing or private
            raise InvalidDataError(f"{store} has no {MIXTURE}") from None
        return cls.from_json(parse_json(data, f"{store}/{MIXTURE}"))

    def push_to_hub(self, repo: str) -> str:
        """Upload the mixture to data set ``repo`` on the Hugging Face Hub; return the commit.

        The data set is created if it is missing.

        Raises:
            RemoteError: The Hub refused, did not answer, or cannot be reached.
            UsageError: ``repo`` is no name of a data set, or HF_HUB_OFFLINE is set.
        """
        return put_file(repo, MIXTURE, json.dumps(self.to_json(), indent=1).encode())


def read_weights(
    weights: Mixture | Mapping[str, float], others: str | None, now: Mapping[str, float]
) -> Mixture:
    """Return a mixture from weights of some or all clusters.

    Args:
        weights: A mixture, which is returned unchanged, or weights by name.
        others: What is left for clusters without a weight. ``scale``: nothing; the named weights
            are scaled to sum 1. ``keep``: the rest, in proportion to ``now``; the named weights are
            shares of all tokens. None: nothing; the named weights must sum to 1, within 0.0001. But
            several weights that are all whole numbers count as ratios, such as 3 to 1, and are
            scaled to sum 1.
        now: Present weights of the clusters that may share the rest.

    Raises:
        UsageError: ``others`` is None, and the weights neither sum to 1 nor are ratios. Or
            ``others`` is ``keep``, and the weights sum to more than 1, or leave a rest that no
            cluster can share.
        InvalidDataError: A weight is not a finite number of 0 or more.
    """
    if others not in (None, *OTHERS):
        raise UsageError(f"others is {short(others)}; it may be {' or '.join(map(repr, OTHERS))}")
    if isinstance(weights, Mixture):
        return weights
    if others == "keep":
        return share_rest(weights, now, "use others='scale'")
    check_weights(weights)
    total = math.fsum(weights.values())
    if others is None and abs(total - 1) > _ROUNDED and not _are_ratios(weights):
        raise UsageError(
            f"the weights {_listed(weights)} sum to {total:.6g}, not to 1; use others='keep' to "
            "let the other clusters share the rest as they do now, or others='scale' to scale "
            "these to 1 and give the others nothing, as Mixture.of does"
        )
    return Mixture.of(weights)


def share_rest(named: Mapping[str, float], now: Mapping[str, float], remedy: str) -> Mixture:
    """Return a mixture with the shares ``named``; other clusters of ``now`` share the rest.

    Args:
        named: Shares of all tokens, by name of cluster.
        now: Present weights, by name of cluster. Clusters that are not in ``named`` share the rest
            in proportion to these weights.
        remedy: What the user has to do so that ``named`` is scaled to sum 1, for messages.

    Raises:
        UsageError: The shares sum to more than 1. Or they sum to less than 1, and no other cluster
            has weight.
        InvalidDataError: A weight is not a finite number of 0 or more.
    """
    check_weights({**now, **named})
    total = math.fsum(named.values())
    if total > 1 + _ROUNDING:
        raise UsageError(
            f"the named weights sum to {total:.6g}, more than 1; {remedy} to scale them "
            "and give the others nothing"
        )
    rest = max(0.0, 1 - total)
    others = {name: weight for name, weight in now.items() if name not in named}
    theirs = math.fsum(others.values())
    if rest > _ROUNDING and not theirs:
        raise UsageError(
            f"the named weights sum to {total:.6g}, and no other cluster has weight to share the "
            f"rest; {remedy} to scale them"
        )
    shared = {name: w / theirs * rest for name, w in others.items() if rest > _ROUNDING}
    return Mixture.of({**shared, **named})


def _are_ratios(weights: Mapping[str, float]) -> bool:
    return len(weights) > 1 and all(float(weight).is_integer() for weight in weights.values())


def _listed(weights: Mapping[str, float]) -> str:
    return some_names([f"{name}={weight:g}" for name, weight in weights.items()])


def integer_weights(weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return ``weights``, float64 ``[K]`` with a sum above 0, as int64 ``[K]`` with sum `ONE`.

    Weights are rounded by the method of the largest remainder; of equal remainders, the lowest
    index comes first. A positive weight becomes at least 1. If the sum is then too large, the
    largest weight is reduced.
    """
    exact = weights / weights.sum() * ONE
    result: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    result[(result == 0) & (weights > 0)] = 1
    missing = ONE - int(result.sum())
    if missing > 0:
        order = np.argsort(-(exact - np.floor(exact)), kind="stable")
        order = order[weights[order] > 0]
        # Because the float sum is rounded, more than one unit per weight can be missing.
        result[order] += missing // len(order)
        result[order[: missing % len(order)]] += 1
    elif missing < 0:
        result[int(np.argmax(result))] += missing
    return result


def check_weights(weights: object) -> None:
    """Raise `InvalidDataError` unless ``weights`` maps names to weights.

    A weight is a number from 0 to 1e100, and at least one weight must be above 0.
    """
    if not isinstance(weights, Mapping) or not weights:
        remedy = "; Mixture.load(FILE) reads one from a file" if isinstance(weights, str) else ""
        raise InvalidDataError(
            "a mixture must be an object with the weights of clusters, such as "
            f'{{"c00": 0.7, "c01": 0.3}}; this is {short(weights)}{remedy}'
        )
    for name, weight in weights.items():
        # Test the types of JSON numbers first: a test for the abstract class Real is slow.
        usable = type(weight) in (float, int) or (
            isinstance(weight, Real) and not isinstance(weight, bool)
        )
        if not isinstance(name, str) or not usable or not 0 <= weight <= _LARGEST:
            raise InvalidDataError(
                f"the weight of cluster {short(name)} is {short(weight)}; "
                f"weights are finite numbers, 0 or more, at most {_LARGEST:g}"
            )
    if not any(weights.values()):
        raise InvalidDataError(
            "every weight of the mixture is 0; give at least one cluster a weight above 0"
        )


def some_names(names: Sequence[str], most: int = 6) -> str:
    """Return a text with the first ``most`` of ``names``, and with the number of the others."""
    text = ", ".join(names[:most])
    return text + (f" and {len(names) - most} more" if len(names) > most else "")

"""Mixture: which share of the tokens comes from which cluster."""

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

from climbstream.loader.core.errors import InvalidDataError, UsageError
from climbstream.loader.core.files import hash_json, read_json, write_json
from climbstream.loader.core.tabular import Tabular
from climbstream.loader.core.typed import check_version, parse_json, short
from climbstream.loader.storage.hub import hub_url, put_file
from climbstream.loader.storage.store import Store

ONE = 1 << 40
"""Integer weights sum to this: fine enough for 1e-12, and ONE * rows fits into an int64."""
MIXTURE = "mixture.json"
_MOST_BYTES = 1 << 24
_LARGEST = 1e100
"""Largest weight: any sum of such is finite."""
OTHERS = ("scale", "keep")
"""Values of the argument ``others``; see `read_weights`."""
_ROUNDED = 1e-4
"""Largest difference from 1 of weights that count as summing to 1: they may have been rounded."""
_ROUNDING = 1e-9
"""Largest difference from 1 of named weights that leave nothing to share."""


@dataclass(frozen=True, slots=True)
class Mixture(Tabular):
    """Weights over cluster names; they sum to 1, and 0 means none.

    Any non-negative finite numbers are taken and normalised. A name that is left out of a
    mixture has weight 0.

    >>> Mixture.of({"c00": 3, "c01": 1}).weights
    {'c00': 0.75, 'c01': 0.25}
    >>> Mixture.of({"c00": 2, "c01": 1, "c02": 0})
    Mixture(c00 66.7%, c01 33.3%; 3 clusters)
    """

    weights: dict[str, float]
    """Share of tokens by cluster name, in the given order."""
    about: dict[str, Any] = field(default_factory=dict, compare=False)
    """Origin of the mixture as JSON values: how it was found, fingerprint of the shards."""

    version = 1

    def __post_init__(self) -> None:
        check_weights(self.weights)
        total = math.fsum(self.weights.values())
        if abs(total - 1) > 1e-9:
            raise InvalidDataError(
                f"the weights of a mixture sum to 1, these to {total:.6g}; use Mixture.of to scale"
            )

    def __repr__(self) -> str:
        largest = self._by_weight()
        shares = [f"{name} {weight:.1%}" for name, weight in largest if weight]
        return f"Mixture({some_names(shares)}; {len(largest)} clusters)"

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
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
        """Scale any non-negative ``weights`` to sum 1.

        Raises:
            InvalidDataError: A weight is negative or not finite, or all are zero.
        """
        check_weights(weights)
        total = math.fsum(weights.values())
        # Weights that sum to 1 already stay as they are, bit for bit.
        scale = 1.0 if abs(total - 1) <= 1e-12 else total
        return cls({name: float(w) / scale for name, w in weights.items()}, dict(about or {}))

    @classmethod
    def uniform(cls, names: Sequence[str]) -> Self:
        """Give every cluster in ``names`` the same weight."""
        return cls.of(dict.fromkeys(names, 1.0))

    def array(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Weights in the order of ``names``: float64 ``[len(names)]``, sum 1.

        Raises:
            InvalidDataError: The mixture has a weight for a cluster that is not in ``names``.
        """
        clusters = set(names)
        unknown = [n for n, w in self.weights.items() if w > 0 and n not in clusters]
        if unknown:
            raise InvalidDataError(
                f"the mixture weights {some_names(unknown)}, "
                f"but the clusters are {some_names(list(names))}"
            )
        return np.array([self.weights.get(n, 0.0) for n in names], np.float64)

    def integers(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Weights as int64 ``[len(names)]`` that sum to `ONE` exactly, by largest remainder.

        A weight of 0 stays 0; a positive weight is never rounded down to 0.
        """
        return integer_weights(self.array(names))

    @property
    def fingerprint(self) -> str:
        """Hash of the weights alone."""
        return hash_json({n: w for n, w in self.weights.items() if w > 0})

    def to_json(self) -> dict[str, Any]:
        """Return the mixture as JSON values."""
        return {"version": self.version, "weights": self.weights, "about": self.about}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what `to_json` gave, or a plain object of weights.

        Raises:
            InvalidDataError: ``value`` is no such object.
        """
        if isinstance(value, dict) and "weights" in value:
            value = check_version(value, cls.version, "mixture")
            about = value.get("about")
            if not isinstance(about, dict | None):
                raise InvalidDataError(f"'about' of a mixture is an object, not {short(about)}")
            return cls.of(value["weights"], about)
        return cls.of(value)

    def to_rows(self) -> list[dict[str, Any]]:
        """Return ``cluster`` and ``weight`` of each cluster, the largest weight first."""
        return [{"cluster": name, "weight": weight} for name, weight in self._by_weight()]

    def save(self, path: str | Path) -> None:
        """Write the mixture to ``path`` as JSON."""
        write_json(Path(path), self.to_json())

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a mixture from the JSON file at ``path``; ``hf://OWNER/NAME`` as `from_hub` does."""
        if isinstance(path, str) and path.startswith("hf://"):
            return cls.from_hub(path)
        if not isinstance(path, str | Path):
            raise UsageError(
                f"a mixture is read from the path of a file, not from {short(path)}; weights by "
                "name become one with Mixture.of"
            )
        path = Path(path)
        if path.is_dir():
            inside = path / MIXTURE
            raise UsageError(
                f"{path} is a folder, and a mixture is a file; "
                + (f"say {inside}" if inside.exists() else f"climb search leaves one, {MIXTURE}")
            )
        try:
            return cls.from_json(read_json(path))
        except InvalidDataError as error:
            raise InvalidDataError(f"{path}: {error}") from None

    @classmethod
    def from_hub(cls, repo: str) -> Self:
        """Read the mixture of a data set of the Hugging Face Hub, ``OWNER/NAME[@REVISION]``.

        Raises:
            InvalidDataError: The data set has no mixture.
            RemoteError: The Hub did not give it.
        """
        store = Store.of(hub_url(repo))
        try:
            data = store.read(MIXTURE, _MOST_BYTES)
        except FileNotFoundError:
            raise InvalidDataError(f"{store} holds no {MIXTURE}") from None
        return cls.from_json(parse_json(data, f"{store}/{MIXTURE}"))

    def push_to_hub(self, repo: str) -> str:
        """Upload the mixture to a data set of the Hub, created if missing; return the commit.

        Raises:
            RemoteError: The Hub refused, or did not answer.
        """
        return put_file(repo, MIXTURE, json.dumps(self.to_json(), indent=1).encode())


def read_weights(
    weights: Mixture | Mapping[str, float], others: str | None, now: Mapping[str, float]
) -> Mixture:
    """Return the weights of all clusters when some or all are named.

    Args:
        weights: A mixture, which stays as it is, or weights by name.
        others: ``scale``: these are ratios, and every other cluster gets nothing. ``keep``: these
            are shares of all tokens, and the others share the rest in the proportion of ``now``.
            None: the weights sum to 1, within 0.0001; or they are whole numbers for two clusters or
            more. Whole numbers cannot be shares, so they are ratios, such as 3 to 1.
        now: Weights of all clusters that may share the rest.

    Raises:
        UsageError: The weights do not sum to 1 and ``others`` does not say what that means; or
            no cluster can have the rest that they leave.
        InvalidDataError: A weight is no weight.
    """
    if others not in (None, *OTHERS):
        raise UsageError(f"others is {short(others)}; it may be {' or '.join(map(repr, OTHERS))}")
    if isinstance(weights, Mixture):
        return weights
    if others == "keep":
        return share_rest(weights, now, "say others='scale'")
    check_weights(weights)
    total = math.fsum(weights.values())
    if others is None and abs(total - 1) > _ROUNDED and not _are_ratios(weights):
        raise UsageError(
            f"the weights {_listed(weights)} sum to {total:.6g}, not to 1; say others='keep' to "
            "let the other clusters share the rest as they do now, or others='scale' to scale "
            "these to 1 and give the others nothing, as Mixture.of does"
        )
    return Mixture.of(weights)


def share_rest(named: Mapping[str, float], now: Mapping[str, float], remedy: str) -> Mixture:
    """Give ``named`` clusters their shares; those of ``now`` share the rest in proportion.

    Args:
        named: Shares of all tokens by name.
        now: Weights of the others; what is named is not among them.
        remedy: What to say to have ``named`` scaled to 1, for a message.

    Raises:
        UsageError: The shares sum to more than 1, or to less with nobody to share the rest.
        InvalidDataError: A weight is no weight.
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
    """Scale ``weights`` (float64 ``[K]``, sum > 0) to int64 that sum to `ONE`.

    Largest remainder, ties to the lowest index. Positive weights stay positive: what they need
    is taken from the largest.
    """
    exact = weights / weights.sum() * ONE
    result: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    result[(result == 0) & (weights > 0)] = 1
    missing = ONE - int(result.sum())
    if missing > 0:
        order = np.argsort(-(exact - np.floor(exact)), kind="stable")
        order = order[weights[order] > 0]
        # Rounding of the float sum can leave more than one unit for each weight.
        result[order] += missing // len(order)
        result[order[: missing % len(order)]] += 1
    elif missing < 0:
        result[int(np.argmax(result))] += missing
    return result


def check_weights(weights: object) -> None:
    """Raise `InvalidDataError` unless ``weights`` maps names to usable numbers."""
    if not isinstance(weights, Mapping) or not weights:
        remedy = "; Mixture.load(FILE) reads one from a file" if isinstance(weights, str) else ""
        raise InvalidDataError(
            "a mixture is an object of cluster names and weights, not empty, as "
            f'{{"c00": 0.7, "c01": 0.3}}; this is {short(weights)}{remedy}'
        )
    for name, weight in weights.items():
        # What JSON gives first: asking for the abstract Real is slow.
        usable = type(weight) in (float, int) or (
            isinstance(weight, Real) and not isinstance(weight, bool)
        )
        if not isinstance(name, str) or not usable or not 0 <= weight <= _LARGEST:
            raise InvalidDataError(
                f"the weight of cluster {short(name)} is {short(weight)}; "
                f"weights are finite numbers, 0 or more, at most {_LARGEST:g}"
            )
    if not any(weights.values()):
        raise InvalidDataError("every weight of the mixture is 0; give at least one cluster some")


def some_names(names: Sequence[str], most: int = 6) -> str:
    """List at most ``most`` of ``names``."""
    text = ", ".join(names[:most])
    return text + (f" and {len(names) - most} more" if len(names) > most else "")

"""WeightsUpdate: a requested change of the weights that has no step yet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.typed import short, valid_text
from climbstream.loader.formats.mixture import Mixture

from .interpolation import MOST_STEPS

_WHY = 500
"""Longest reason, in characters: every saved state holds it."""


@dataclass(frozen=True, slots=True)
class WeightsUpdate:
    """The weights to reach, the number of steps until then, and the reason."""

    mixture: Mixture
    ramp: int = 0
    """Steps of the straight line to the weights; 0: they hold at once."""
    why: str = ""

    def __post_init__(self) -> None:
        if type(self.ramp) is not int or not 0 <= self.ramp <= MOST_STEPS:
            raise InvalidDataError(
                f"a ramp takes a whole number of steps from 0 to {MOST_STEPS:,}, "
                f"not {short(self.ramp)}"
            )
        if not isinstance(self.why, str) or len(self.why) > _WHY:
            raise InvalidDataError(f"'why' is a text of at most {_WHY} characters")
        # The reason may come from the arguments of a command, which need not be UTF-8.
        object.__setattr__(self, "why", valid_text(self.why))

    def to_json(self) -> dict[str, Any]:
        """Return the change as JSON values; of its mixture only the weights above 0."""
        weights = {name: w for name, w in self.mixture.weights.items() if w > 0}
        return {
            "version": Mixture.version,
            "weights": weights,
            "ramp": self.ramp,
            "why": self.why,
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read what `to_json` gave, or any JSON of a mixture; the version may be left out.

        Raises:
            InvalidDataError: ``value`` is no such object, or has an unknown field.
        """
        if not isinstance(value, Mapping) or "weights" not in value:
            return cls(Mixture.from_json(value))
        fields = dict(value)
        ramp, why = fields.pop("ramp", 0), fields.pop("why", "")
        if unknown := sorted(fields.keys() - {"version", "weights", "about"}):
            raise InvalidDataError(
                f"{short(unknown[0])} means nothing in a change of weights; "
                "it has weights, ramp, why, version and about"
            )
        return cls(Mixture.from_json({"version": Mixture.version, **fields}), ramp, why)

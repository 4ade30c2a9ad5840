"""WeightsUpdate: a requested change of the weights, before a step is assigned to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.typed import short, valid_text
from climbstream.loader.formats.mixture import Mixture

from .interpolation import MOST_STEPS

EVERY = 16
"""Default number of steps from one meeting of the ranks to the next; see `Agreement`."""
_WHY = 500
"""Longest reason, in characters; it is limited because every saved state contains it."""


@dataclass(frozen=True, slots=True)
class WeightsUpdate:
    """A change of the weights: the new weights, the length of a ramp to them, and the reason."""

    mixture: Mixture
    ramp: int = 0
    """Number of steps of a linear ramp to the weights; 0: they take effect immediately."""
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
        """Return the change as JSON values, with only those weights that are above 0."""
        weights = {name: w for name, w in self.mixture.weights.items() if w > 0}
        return {
            "version": Mixture.version,
            "weights": weights,
            "ramp": self.ramp,
            "why": self.why,
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the value that `to_json` returned, or JSON of a mixture; a version is not needed.

        Raises:
            InvalidDataError: ``value`` is neither of these, or has an unknown field.
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

"""WeightsUpdate: a change of the weights that was asked for; it has no step yet."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.typed import short, valid_text
from climbstream.loader.formats.mixture import Mixture

from .interpolation import MOST_STEPS

EVERY = 16
"""Default number of steps between two exchanges of messages among ranks; see `Agreement`."""
_WHY = 500
"""Largest length of a reason, in characters. It is limited because saved states contain reasons."""


@dataclass(frozen=True, slots=True)
class WeightsUpdate:
    """A change of the weights: the new weights, the length of a ramp to them, and the reason."""

    mixture: Mixture
    ramp: int = 0
    """Number of steps in which weights change linearly to the new ones; 0: they change at once."""
    why: str = ""
    """Reason of the change, which is written to the weights log; at most 500 characters."""

    def __post_init__(self) -> None:
        if type(self.ramp) is not int or not 0 <= self.ramp <= MOST_STEPS:
            raise InvalidDataError(
                f"a ramp takes a whole number of steps from 0 to {MOST_STEPS:,}, "
                f"not {short(self.ramp)}"
            )
        if not isinstance(self.why, str) or len(self.why) > _WHY:
            raise InvalidDataError(f"'why' must be text of at most {_WHY} characters")
        # The reason may be an argument of a command, and these need not be valid UTF-8.
        object.__setattr__(self, "why", valid_text(self.why))

    def to_json(self) -> dict[str, Any]:
        """Return the change as JSON values, without weights of 0."""
        weights = {name: w for name, w in self.mixture.weights.items() if w > 0}
        return {
            "version": Mixture.version,
            "weights": weights,
            "ramp": self.ramp,
            "why": self.why,
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Read the value that `to_json` returned, or the JSON value of a mixture.

        The field ``version`` may be missing.

        Raises:
            InvalidDataError: ``value`` is neither of these, or has an unknown field.
        """
        if not isinstance(value, Mapping) or "weights" not in value:
            return cls(Mixture.from_json(value))
        fields = dict(value)
        ramp, why = fields.pop("ramp", 0), fields.pop("why", "")
        if unknown := sorted(fields.keys() - {"version", "weights", "about"}):
            raise InvalidDataError(
                f"a change of weights has no field {short(unknown[0])}; its fields are weights, "
                "ramp, why, version and about"
            )
        return cls(Mixture.from_json({"version": Mixture.version, **fields}), ramp, why)

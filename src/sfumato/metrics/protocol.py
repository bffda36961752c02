"""The protocol of a score: what must be equal before two numbers may be compared.

A score depends on more than the model: on the feature network and its weights, the resize in front of it, the
rounding to uint8, the file codec, the reference images, the number of images, the classes asked for, the estimator.
Those are the **identity** of a protocol; `protocol_id` is a hash of them, and scores with different ids are not
compared: no difference is printed and no rank given.  Everything else that made the number (checkpoint, EMA, sampler,
grid, NFE, guidance, precision, seeds, hardware, versions, how the checkpoint was selected) is its **provenance**:
recorded, listed where it differs, and no obstacle to comparison.

Canonical JSON: keys sorted, no spaces, ASCII, no NaN.  protocol_id = first 16 hex digits of its sha256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

JSON = dict[str, Any]


class IncomparableError(ValueError):
    """Two scores were asked to be compared whose protocols differ.

    Attributes:
        fields: (field, first value, second value) for every identity field that differs.
    """

    exit_code = 3

    def __init__(self, fields: list[tuple[str, Any, Any]]):
        self.fields = fields
        lines = "".join(f"\n  {name}: {a!r} against {b!r}" for name, a, b in fields)
        super().__init__(
            f"These scores were not made by one protocol, so their difference means nothing. "
            f"Score both again with equal:{lines}"
        )


def canonical(value: Any) -> str:
    """Write a JSON value in the one form that is hashed.

    >>> canonical({"b": 1, "a": [0.5, None]})
    '{"a":[0.5,null],"b":1}'
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"A protocol holds plain JSON values without NaN: {error}") from None


@dataclass(frozen=True, slots=True)
class Reference:
    """Which real images a score is taken against.

    Arguments:
        dataset: Name, for people.
        content_hash: sha256 over the sorted hashes of the decoded images; "" if unknown.
        split: "train", "val", "test" or "all"; "" if unknown.
        rule: How the split was made.
        index_hash: sha256 over the sorted indices of the images in the source; "" if unknown.
        n: Number of images; 0 if unknown.
        preprocessing: Crop and resize before the reference was stored, or "none".
        flips: Whether mirrored copies count as reference images.
        channels: Channels of the images.
    """

    dataset: str
    content_hash: str
    split: str
    rule: str
    index_hash: str
    n: int
    preprocessing: str = "none"
    flips: bool = False
    channels: int = 1

    @property
    def verified(self) -> bool:
        """Whether its number of images and its content are known."""
        return self.n > 0 and bool(self.content_hash)


NO_REFERENCE = Reference("none", "", "", "", "", 0)
"""What a score names that knows no real images, such as the Inception Score."""


@dataclass(frozen=True, slots=True)
class EvalProtocol:
    """How a score was made.

    Arguments:
        metric: Name of the metric, such as "FD".
        version: Version of this project's definition of it.
        extractor: Name of the feature extractor.
        weights_hash: Hash of its weights.
        features: What `Extractor.describe` says: resize, scaling, dtype, layer.
        reference: The real images.
        n: Number of generated images.
        class_prior: Which labels the images were asked for: "unconditional", "uniform", "training" (as often as
            among the training images), "reference", "class 3".
        estimator: How the number is estimated from features.
        quantisation: How floats became uint8.
        codec: File format between generator and extractor; "none" if images never touched a file.
        options: Options of the metric: k, subset sizes, splits.
        provenance: Everything else that made the number; not part of the identity.
    """

    metric: str
    version: int
    extractor: str
    weights_hash: str
    features: JSON
    reference: Reference
    n: int
    class_prior: str
    estimator: str
    quantisation: str = "round"
    codec: str = "none"
    options: JSON = field(default_factory=dict)
    provenance: JSON = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("features", "options", "provenance"):  # a private copy, in plain JSON
            object.__setattr__(self, name, json.loads(canonical(getattr(self, name))))
        if self.n < 1:
            raise ValueError(f"A protocol needs the number of generated images, got n = {self.n}.")

    @property
    def identity(self) -> JSON:
        """The part that must be equal for scores to be compared."""
        return {key: value for key, value in asdict(self).items() if key != "provenance"}

    @property
    def protocol_id(self) -> str:
        """First 16 hex digits of the sha256 of the canonical identity."""
        return hashlib.sha256(canonical(self.identity).encode()).hexdigest()[:16]

    def to_json(self) -> JSON:
        """Return the protocol as JSON values, with its id."""
        return {**asdict(self), "protocol_id": self.protocol_id}

    @classmethod
    def from_json(cls, values: JSON) -> EvalProtocol:
        """Read a protocol.

        Raises:
            ValueError: If a field is unknown or missing, or the stored id is not the id of these fields.
        """
        given = dict(values)
        stored = given.pop("protocol_id", None)
        try:
            protocol = cls(**{**given, "reference": Reference(**given["reference"])})
        except (TypeError, KeyError) as error:
            raise ValueError(f"This is not a protocol of this version: {error}.") from None
        if stored is not None and stored != protocol.protocol_id:
            raise ValueError(
                f"The protocol was edited: its fields hash to {protocol.protocol_id}, not {stored}. "
                "Score the images again."
            )
        return protocol


def differences(a: JSON, b: JSON, prefix: str = "") -> list[tuple[str, Any, Any]]:
    """List the fields in which two nested JSON objects differ, as (dotted name, value in a, value in b).

    >>> differences({"n": 1, "r": {"k": 3}}, {"n": 1, "r": {"k": 5, "m": 1}})
    [('r.k', 3, 5), ('r.m', None, 1)]
    """
    found: list[tuple[str, Any, Any]] = []
    for key in sorted(a.keys() | b.keys()):
        x, y = a.get(key), b.get(key)
        if isinstance(x, dict) and isinstance(y, dict):
            found += differences(x, y, f"{prefix}{key}.")
        elif x != y:
            found.append((f"{prefix}{key}", x, y))
    return found


def check_comparable(a: EvalProtocol, b: EvalProtocol, varied: Collection[str] = ()) -> list[tuple[str, Any, Any]]:
    """Refuse two protocols whose identities differ.

    Arguments:
        a: First protocol.
        b: Second.
        varied: Fields in which they may differ, since what they say is what is compared.

    Returns:
        The fields of provenance that differ, for the reader.

    Raises:
        IncomparableError: With every identity field that differs.
    """
    if fields := [found for found in differences(a.identity, b.identity) if found[0] not in varied]:
        raise IncomparableError(fields)
    return differences(a.provenance, b.provenance)

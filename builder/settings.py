"""BuildSettings: what decides the result of a build, apart from the corpus."""

from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any, Final, Self, get_args, get_origin

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.formats.clusters import AD_FREE, ADVERTISEMENT, score_title

from .end_token import EndChoice
from .language_codes import LANGUAGES, languages_remedy
from .licenses import check_licenses

SCORES = ("overall", "educational", "informational", "advertisement")
"""Quality scores of a document, 0 to 5. Higher is always better: a score of 5 for advertisement
means that the document has none."""

PARTITION_MIB = (4, 4096)
"""Least and largest size in MiB of the text that one task works on."""
MOST = 5.0
"""Highest score of the bundled scorers."""

IDS = ("source", "global", "none")
"""Values of the setting ``ids``: where the identifier of a document is unique."""

EVERY = ["*"]
"""Value of the setting ``languages`` that stands for all languages."""
_COLUMN = "column:"
_DEFAULTS = ("text", "id", "label", "license")
"""Settings that name a column. The default name of the column is the name of the setting."""
CATALOGUE = (
    "id cluster why copy_of exact_copies near_copies source_count shard row tokens bytes micro "
    "overall educational informational advertisement label license language script origin "
    "text_hash signature"
).split()
"""Columns of ``documents/*.parquet``."""

CONTAMINATED: Final = "contaminated"
"""Column that the catalogue of a build with ``decontaminate`` has in addition: task and item that a
document contains, or null."""

EQUAL_TEXT: Final = "text seen before"
"""Reason in the column ``why`` of the catalogue for an exact copy."""

THRESHOLDS: dict[str, dict[str, float]] = {
    "paper": {"overall": 3.0},
    "recipe": {"overall": 2.0, "educational": 1.0, "informational": 1.0, "advertisement": 1.0},
}
"""Mean scores below which CLIMB drops a cluster: those of the paper (arXiv 2504.13161, section
3.1), and those of NVIDIA's recipe. The recipe has a fifth score, cultural value, which does not
exist here. These thresholds are meant for CLIMB's classifiers, which predict a language model's
rating of 0 to 5. The bundled scorers count words and punctuation marks, and have other
thresholds."""

DECIDES = {
    "what is read": ("text", "id", "label", "license", "keep", "max_bytes", "text_lines"),
    "the embedding and the centroids": (
        "embed",
        "trust_remote_code",
        "micro_clusters",
        "dims",
        "restarts",
        "sample",
        "scores",
        "languages",
        "licenses",
        "seed",
    ),
    "what stays and its clusters": (
        "clusters",
        "cells",
        "tiers",
        "tier_score",
        "min_cluster_score",
        "min_document_score",
        "no_prune",
        "keep_ids",
        "decontaminate",
        "mark_contaminated",
        "merge_height",
        "balanced",
        "ids",
        "keep_duplicates",
        "near_duplicates",
        "holdout",
    ),
    "the tokens": ("tokenizer", "vocab_size", "eos_token", "eos_id", "no_eos"),
}
"""For each stage, the settings that change it. If a stage changes, all later stages change too."""

_LATER = ("trust_remote_code", "licenses", "cells", "tiers", "tier_score")
"""Settings that did not exist in earlier versions. If such a setting has its default, the plan does
not contain it, so that the plan is equal to that of an earlier version."""

TIER_SCORES = ("mean", *SCORES)
"""Values of the setting ``tier_score``; ``mean`` is the mean of all scores."""
CELLS = ("topic", "micro")
"""Values of the setting ``cells``: a cell is a part of a cluster after merging, or of a
micro-cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """Settings of a build; equal settings and sources give equal bytes.

    >>> BuildSettings(clusters=8, holdout=0.02).min_cluster_score
    {'overall': 2.0, 'advertisement': 2.5}

    Raises:
        InvalidDataError: A value is of another type, or out of its range.
        UsageError: More than one of ``eos_token``, ``eos_id`` and ``no_eos`` is set.
    """

    clusters: int = 20
    """Number of clusters after merging; the paper on CLIMB has 21."""
    micro_clusters: int | None = None
    """Number of clusters before pruning and merging; default: one per 32 documents of the sample,
    at most 1,000."""
    text: str = "text"
    """Column of the text."""
    id: str = "id"
    """Column of the identifier. The identifier of a document without one is its place in the
    corpus."""
    ids: str = "source"
    """Where an identifier is unique: within its file (``source``), or within the whole corpus
    (``global``). Of documents with the same identifier, only the first is kept. With ``none``, all
    of them are kept."""
    label: str = "label"
    """Column of a known domain, which clustering does not use. With ``folder``, the domain of a
    record without a column ``folder`` is the name of its file's folder."""
    license: str = "license"
    """Column of the licence."""
    max_bytes: int = 1_000_000
    """Maximum number of bytes of a document; longer documents are left out and counted."""
    text_lines: bool = False
    """Whether each line of a plain text file is a document; if not, the whole file is one."""
    keep: list[str] = field(default_factory=list)
    """Columns of the corpus that are copied to ``documents/*.parquet``, as text."""
    embed: str = "tfidf"
    """The embedding: ``tfidf`` (fitted by the build), ``st:NAME`` (a model of
    sentence-transformers), ``m2v:NAME`` (a model of model2vec) or ``column:NAME`` (vectors in a
    column of the corpus)."""
    trust_remote_code: bool = False
    """Whether code that comes with a model ``st:NAME`` is run on the machines of the build."""
    scores: dict[str, str] = field(default_factory=dict)
    """Where a score comes from, by name of the score: ``column:NAME`` is a column of numbers in the
    corpus; any other value is the path of a fastText model. All other scores are computed by the
    bundled scorers."""
    dims: int = 100
    """Number of dimensions of the embedding ``tfidf``."""
    restarts: int = 2
    """Number of starts of k-means; the best result is used."""
    sample: int = 32_000
    """Number of documents that the embedding, the centroids and the tokenizer are fitted on."""
    min_cluster_score: dict[str, float] = field(
        default_factory=lambda: {"overall": 2.0, "advertisement": 2.5}
    )
    """Minimum mean score of a micro-cluster that stays, by name of the score."""
    min_document_score: dict[str, float] = field(
        default_factory=lambda: {"overall": 1.0, "advertisement": 1.5}
    )
    """Minimum score of a document that stays, by name of the score."""
    keep_ids: list[str] = field(default_factory=list)
    """Identifiers of documents that stay whatever their scores, languages and licences, and even if
    they are duplicates. Contaminated and held-out documents do not stay."""
    decontaminate: list[str] = field(default_factory=list)
    """Tasks, as files or ``lm-eval=NAME``; documents that contain an item of a task are dropped."""
    mark_contaminated: bool = False
    """Whether documents that contain an item of a task in ``decontaminate`` stay, and are only
    marked in the catalogue."""
    no_prune: bool = False
    """Whether documents and micro-clusters stay even if their scores are low."""
    languages: list[str] = field(default_factory=lambda: list(EVERY))
    """Languages that are kept, as ISO 639 codes, which the catalogue also uses. Further values are
    ``code`` (programs), ``und`` (language not recognised) and ``*`` (all languages)."""
    licenses: list[str] = field(default_factory=list)
    """Licences that are kept or, if each is written after a ``!``, left out; ``unknown`` stands for
    documents that state no licence. An empty list keeps every licence."""
    keep_duplicates: bool = False
    """Whether duplicates stay; they are counted in any case."""
    near_duplicates: float | None = 0.8
    """Minimum similarity of duplicates, 0.5 to 1; None: only equal texts are duplicates."""
    merge_height: float | None = None
    """Clusters are merged up to this Ward height (1.5 in the paper); None: clusters are merged
    until ``clusters`` of them are left."""
    balanced: bool = False
    """Whether clusters are found by splitting the largest cluster again and again, so that their
    sizes are more even."""
    cells: str = "topic"
    """What is cut into cells. ``topic``: each cluster, but only if ``tiers`` is set. ``micro``:
    each micro-cluster, by language, and also by tier if ``tiers`` is set."""
    tiers: int | None = None
    """Number of tiers of quality that divide each cluster into cells; if the corpus has several
    languages, cells are also divided by language. None: clusters are stored whole."""
    tier_score: str = "mean"
    """Score that decides the tier of a document: one of `SCORES`, or ``mean``, the mean of all."""
    holdout: float = 0.0
    """Fraction of the documents that is kept out of the shards, for evaluation."""
    tokenizer: str | None = None
    """A Hugging Face tokenizer: name, folder or tokenizer.json; None: a byte-level BPE is
    trained."""
    vocab_size: int = 32_768
    """Size of the vocabulary of a tokenizer that the build trains."""
    eos_token: str | None = None
    """Name of the token that ends a document; default: what the tokenizer's files say."""
    eos_id: int | None = None
    """Number of the token that ends a document, instead of its name."""
    no_eos: bool = False
    """Whether documents have no end token."""
    seed: int = 17
    """Seed of all random samples, and of the starts of k-means."""

    def __post_init__(self) -> None:
        self._check_types()
        self._check_ranges()
        _ = self.end  # raises an error if more than one of its three settings is given
        self._check_names()
        self._check_combinations()

    def _check_types(self) -> None:
        for f in fields(self):
            if not _fits(getattr(self, f.name), f.type):
                kind = f.type.__name__ if isinstance(f.type, type) else f.type
                raise InvalidDataError(
                    f"{f.name} is {getattr(self, f.name)!r}; it must be of type {kind}"
                )

    def _check_ranges(self) -> None:
        for name, low, high in (
            ("clusters", 1, 10_000),
            ("dims", 2, 1024),
            ("restarts", 1, 100),
            ("sample", 100, 10**7),
            ("vocab_size", 258, 2**31),
            ("max_bytes", 1, 10**9),
        ):
            if not low <= getattr(self, name) <= high:
                raise InvalidDataError(
                    f"{name} is {getattr(self, name)}; it must be from {low:,} to {high:,}"
                )
        if not 0 <= self.holdout < 1:
            percent = f"; for a percentage, write {self.holdout:g}%" if self.holdout > 0 else ""
            raise InvalidDataError(
                f"holdout is {self.holdout}; it must be from 0 to below 1{percent}"
            )
        if self.near_duplicates is not None and not 0.5 <= self.near_duplicates <= 1:
            raise InvalidDataError(
                f"near_duplicates is {self.near_duplicates}; it must be from 0.5 to 1, or null"
            )
        if self.merge_height is not None and not self.merge_height > 0:
            raise InvalidDataError(f"merge_height is {self.merge_height}; it must be above 0")
        for least in (self.min_cluster_score, self.min_document_score):
            for name, threshold in least.items():
                # Scores from a column or a model may have another scale.
                if name not in self.scores and not threshold <= MOST:
                    raise InvalidDataError(
                        f"the least score {score_title(name)} is {threshold:g}; scores are from "
                        f"0 to {MOST:g}, so no document would stay"
                    )
        if self.tiers is not None and not 1 <= self.tiers <= 100:
            raise InvalidDataError(f"tiers is {self.tiers}; it must be from 1 to 100, or null")

    def _check_names(self) -> None:
        """Check settings that contain names, such as names of languages, licences and scores."""
        check_licenses(self.licenses)
        if self.cells not in CELLS:
            raise InvalidDataError(f"cells is {self.cells!r}; it must be one of {', '.join(CELLS)}")
        if self.tier_score not in TIER_SCORES:
            raise InvalidDataError(
                f"tier_score is {self.tier_score!r}; it must be one of "
                f"{', '.join(map(score_title, TIER_SCORES))}"
            )
        codes = [name for name in self.languages if name not in LANGUAGES and name != "*"]
        if codes:
            raise InvalidDataError(
                f"there is no language {', '.join(codes)}; {languages_remedy(codes)}"
            )
        if not self.languages or ("*" in self.languages and self.languages != EVERY):
            raise InvalidDataError(
                f"languages is {self.languages}; name some, such as de or fr, or only * for all"
            )
        if self.ids not in IDS:
            raise InvalidDataError(f"ids is {self.ids!r}; it must be one of {', '.join(IDS)}")
        kind, _, place = self.embed.partition(":")
        if self.embed != "tfidf" and (kind not in ("st", "m2v", "column") or not place):
            raise InvalidDataError(
                f"embed is {self.embed!r}; it must be tfidf, st:NAME (sentence-transformers), "
                "m2v:NAME (model2vec) or column:NAME (vectors that the corpus brings)"
            )
        for scores in (self.min_cluster_score, self.min_document_score, self.scores):
            if unknown := set(scores) - set(SCORES):
                raise InvalidDataError(
                    f"there is no score {', '.join(sorted(unknown))}; the scores are "
                    f"{', '.join(map(score_title, SCORES))}"
                )

    def _check_combinations(self) -> None:
        """Check settings that depend on each other."""
        if taken := [name for name in self.keep if name in CATALOGUE or self.keep.count(name) > 1]:
            raise InvalidDataError(
                f"keep cannot add {', '.join(dict.fromkeys(taken))}; name each column once, and "
                "none that documents/*.parquet has already"
            )
        if self.decontaminate and CONTAMINATED in self.keep:
            raise InvalidDataError(
                f"keep names {CONTAMINATED}, a column that decontaminate adds; rename the column"
            )
        if self.trust_remote_code and not self.uses_gpus:
            raise InvalidDataError(
                f"trust_remote_code is for the code of a model st:NAME, and embed is {self.embed}; "
                "leave it out"
            )
        if self.mark_contaminated and not self.decontaminate:
            raise InvalidDataError(
                "mark_contaminated needs tasks in decontaminate; name them there"
            )
        if self.micro_clusters is not None and self.micro_clusters < self.clusters:
            raise InvalidDataError(
                f"{self.micro_clusters} micro-clusters cannot be merged into {self.clusters}; "
                f"ask for {self.clusters} micro-clusters or more"
            )

    @property
    def score_columns(self) -> dict[str, str]:
        """Columns of the corpus that contain scores, by name of the score."""
        return {
            name: place.removeprefix(_COLUMN)
            for name, place in sorted(self.scores.items())
            if place.startswith(_COLUMN)
        }

    @property
    def has_cells(self) -> bool:
        """Whether clusters are stored in parts (cells), by quality, language or micro-cluster."""
        return self.tiers is not None or self.by_micro

    @property
    def by_micro(self) -> bool:
        """Whether a cell is a part of a micro-cluster, not of a cluster after merging."""
        return self.cells == "micro"

    @property
    def names_model(self) -> bool:
        """Whether the embedding comes from a pretrained model."""
        return self.embed.startswith(("st:", "m2v:"))

    @property
    def uses_gpus(self) -> bool:
        """Whether GPUs can compute the embedding. Only models of sentence-transformers use GPUs."""
        return self.embed.startswith("st:")

    @property
    def vector_column(self) -> str | None:
        """Column of the corpus that contains the embedding; None if no column does."""
        return self.embed.removeprefix(_COLUMN) if self.embed.startswith(_COLUMN) else None

    @property
    def columns(self) -> list[str]:
        """Names or paths of all columns of the corpus that a build uses if they exist."""
        return [getattr(self, name) for name in _DEFAULTS] + [
            column for _, column in self.asked_columns
        ]

    @property
    def asked_columns(self) -> list[tuple[str, str]]:
        """Columns that must exist, as (setting, column): the text, and columns that users name."""
        named = [(name, getattr(self, name)) for name in _DEFAULTS]
        return [
            *((name, column) for name, column in named if name == "text" or column != name),
            *(("keep", column) for column in self.keep),
            *(("score", column) for column in self.score_columns.values()),
            *(("embed", column) for column in [self.vector_column] if column is not None),
        ]

    @property
    def end(self) -> EndChoice:
        """The user's choice of the token that ends a document."""
        return EndChoice(eos_token=self.eos_token, eos_id=self.eos_id, no_eos=self.no_eos)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        fields = asdict(self)
        return {k: v for k, v in fields.items() if k not in _LATER or v != _default(k)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Return the settings in a JSON object; settings that it lacks have their defaults.

        The score ``advertisement`` may also be called ad-free, as in commands.

        Raises:
            InvalidDataError: A name or value is unknown.
        """
        names = [f.name for f in fields(cls)]
        if not isinstance(value, dict) or (unknown := set(value) - set(names)):
            what = ", ".join(sorted(unknown)) if isinstance(value, dict) else type(value).__name__
            raise InvalidDataError(
                f"unknown build settings: {what}; the settings are {', '.join(names)}"
            )
        for name in ("min_cluster_score", "min_document_score", "scores"):
            if isinstance(scores := value.get(name), dict) and AD_FREE in scores:
                named = {ADVERTISEMENT if k == AD_FREE else k: v for k, v in scores.items()}
                value = {**value, name: named}
        if value.get("tier_score") == AD_FREE:
            value = {**value, "tier_score": ADVERTISEMENT}
        return cls(**value)


def complete_settings(settings: Any) -> Any:
    """Add the missing values to ``settings``, which an earlier version may have written.

    An earlier version read each line of a text file as a document, so a missing ``text_lines`` is
    set to True. Other missing settings get their defaults. A value that is not a dictionary is
    returned unchanged.
    """
    if not isinstance(settings, dict):
        return settings
    return {**BuildSettings(text_lines=True).to_json(), **settings}


def effect_of_change(old: Any, new: Any) -> str:
    """Return a text on the stages that change if the plan changes from ``old`` to ``new``.

    The text is the end of an error message. It is "" if the sources differ or no stage changes.
    """
    if old.get("sources") != new["sources"] or not isinstance(old.get("settings"), dict):
        return ""
    what = first_change(old, new)
    return f"; that changes {what}; all later stages change, too" if what else ""


def first_change(old: Any, new: Any) -> str:
    """Return the first stage, a key of `DECIDES`, that differs between two plans; "" if none."""
    before = old.get("settings")
    if old.get("sources") != new["sources"] or not isinstance(before, dict):
        return next(iter(DECIDES))
    after = new["settings"]
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return next(
        (what for what, names in DECIDES.items() if any(name in names for name in changed)), ""
    )


def _default(name: str) -> Any:
    """Return the default of setting ``name``."""
    setting = next(f for f in fields(BuildSettings) if f.name == name)
    return setting.default if setting.default_factory is MISSING else setting.default_factory()


def _fits(value: object, kind: Any) -> bool:
    """Whether ``value``, read from JSON, is of type ``kind``; an integer is also a float."""
    if get_origin(kind) is dict:
        of = get_args(kind)[1]
        return isinstance(value, dict) and all(_fits(v, of) for v in value.values())
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(v, get_args(kind)[0]) for v in value)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, int | float if kind is float else kind)

"""What a bundle says of itself: the schema of `manifest.json`.

Knows names, shapes, labels and figures. Knows nothing of folders (see `store`), of how pictures are
decoded (see `pixels`), or of any runtime.
"""

import itertools
import json
import math
import operator
import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_validator,
)

FORMAT_VERSION = 1
NAME_PATTERN = r"[a-z0-9][a-z0-9_-]{0,62}"
GRAPH_INPUTS = {"image": "image", "features": "features"}
GRAPH_OUTPUT = "scores"
FAMILIARITY_OUTPUT = "familiarity"
PLACES_OUTPUT = "places"
MOST_THUMBNAILS = 512


class BundleError(Exception):
    """A bundle that must not be used. The message says which part is wrong and why."""


def check_name(name: str) -> str:
    """Returns `name` if it may name a model.

    Raises:
        ValueError: It may not: names are lower-case letters, digits, `-` and `_`, at most 63, because
            they are folder names and appear in URLs, metrics and container labels.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise ValueError(f"model name {name!r} must match {NAME_PATTERN}")
    return name


def _check_relative(path: str) -> str:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or "\\" in path or any(part in ("..", ".") for part in parts):
        raise ValueError(f"path {path!r} must stay inside the bundle")
    return path


def _check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    blank = [index for index, name in enumerate(names) if not name.strip() or name != name.strip()]
    if blank:
        raise ValueError(f"entries {blank} are blank or have spaces around them")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{repeated} occur more than once")
    return names


def _is_none(value: object) -> bool:
    """Whether a field that earlier releases do not know may be left out."""
    return value is None


RelativePath = Annotated[str, AfterValidator(_check_relative)]
Score = Annotated[float, Field(ge=0.0, le=1.0)]
Measure = Literal["score", "familiarity", "brightness", "side"]
"""Of an input or its answer, see `distributions`."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PixelSpec(_Part):
    """How encoded bytes become the array that the graph takes. The order is: orient as EXIF says,
    convert the colours, resize, crop the centre.
    """

    resize: PositiveInt | tuple[PositiveInt, PositiveInt]
    """Length of the shorter side in pixels, or exact (height, width)."""
    crop: tuple[PositiveInt, PositiveInt]
    """(height, width) in pixels; what the picture lacks is filled with black."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    color: Literal["rgb", "grayscale"] = "rgb"
    # Left out where it is not used: manifests, and graphs' metadata, stay what they were before there was a choice.
    scaled_decoding: bool = Field(default=False, exclude_if=operator.not_)
    """Whether JPEG decoders may halve a picture's sides up to three times before its colours are converted, as long
    as both stay at least twice what `resize` makes of them.
    """
    resampler: Literal["pillow", "simd"] = Field(default="pillow", exclude_if="pillow".__eq__)
    """Whose arithmetic resizes: Pillow's, as torchvision's is, or the faster one of `fixed_point`, the same on every
    processor. `nearest` is Pillow's in both.
    """

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the result."""
        return (*self.crop, 3 if self.color == "rgb" else 1)


class ImageInput(_Part):
    """uint8 `[batch, height, width, channels]`, named `image` in the graph."""

    kind: Literal["image"] = "image"
    dtype: Literal["uint8"] = "uint8"
    shape: tuple[PositiveInt, PositiveInt, Literal[1, 3]]


class FeaturesInput(_Part):
    """float32 `[batch, features]`, named `features` in the graph, as they are: it standardises them itself."""

    kind: Literal["features"] = "features"
    dtype: Literal["float32"] = "float32"
    shape: tuple[PositiveInt]
    names: Annotated[tuple[str, ...], AfterValidator(_check_names)] = ()
    """What each number is, in their order; empty if nobody said."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.names and len(self.names) != self.shape[0]:
            raise ValueError(f"{len(self.names)} names for {self.shape[0]} features")
        return self


class Thresholds(_Part):
    """Values below which an answer is not believed."""

    unknown: Score | None = None
    """Single-label: an input whose `unknown_by` is below this is "none of these"."""
    # Left out where it is the best score: such manifests stay what they were before there was a choice.
    unknown_by: Literal["score", "familiarity"] = Field(default="score", exclude_if="score".__eq__)
    """What `unknown` is compared with: the best score, or the graph's second output."""
    labels: tuple[Score, ...] | None = None
    """Multi-label: the lowest score at which each label counts, in class order."""


class Golden(_Part):
    """An input kept with the scores that the trained model gave it."""

    file: RelativePath
    scores: tuple[Score, ...]
    familiarity: Score | None = Field(default=None, exclude_if=_is_none)
    """Of a bundle whose graph judges it, and only there."""
    tolerance: Annotated[float, Field(gt=0.0, lt=1.0)]
    """Largest allowed difference of any score, and of the familiarity."""
    map: tuple[FiniteFloat, ...] | None = Field(default=None, exclude_if=_is_none)
    """Of a bundle whose graph gives `maps`, and only there: that of the label with the highest score, row by row."""

    @property
    def row(self) -> tuple[float, ...]:
        """As `answers` joins what a graph gives."""
        return self.scores if self.familiarity is None else (*self.scores, self.familiarity)


class MapSpec(_Part):
    """The graph's last output, float32 `[batch, features, rows, columns]`: the features of each place of the picture,
    before they are pooled. With `weights` they give class activation maps, see `class_maps`.
    """

    feature_count: PositiveInt

    shape: tuple[PositiveInt, PositiveInt]
    """(rows, columns)."""
    weights: RelativePath
    """File of the last layer's weights."""
    tolerance: Annotated[float, Field(gt=0.0, le=1.0)]
    """Largest allowed difference of any golden's map, as a share of the largest value in it."""


class Thumbnail(_Part):
    """A training picture that leaves with the bundle, small, as the model saw it."""

    file: RelativePath
    labels: tuple[str, ...]
    """That are true of it."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the training picture's own file, which is not in the bundle: what finds it when its contributor leaves."""


class ThumbnailSpec(_Part):
    """Training pictures to show beside an answer, because the network sees them alike; see `thumbnails`."""

    features: RelativePath
    """File of their features, one row for each."""
    pictures: Annotated[tuple[Thumbnail, ...], Field(min_length=1, max_length=MOST_THUMBNAILS)]


class Evidence(_Part):
    """What was seen of a lighter graph beside the fp32 one, on the validation pictures; for several labels with each
    at 0.5, whatever `thresholds` say.
    """

    picture_count: PositiveInt
    lost: NonNegativeInt
    """Pictures that only the fp32 graph answers rightly."""
    gained: NonNegativeInt
    """Pictures that only this one does."""
    loss_bound: Annotated[float, Field(ge=-1.0, le=1.0)]
    """The accuracy that it loses at most on other pictures of the kind, with `confidence`; one-sided."""
    confidence: Score
    budget: Score
    """Accuracy that it may lose."""
    judged_by: Literal["bound", "estimate"]
    """What had to stay within the budget: `loss_bound`; or, because whoever exported it said so, only what it loses on
    these pictures.
    """
    agreement: Score
    """Share of the pictures that both answer alike, rightly or not."""
    divergence: NonNegativeFloat
    """Mean Kullback-Leibler divergence of its scores from the fp32 graph's, in nats."""


class Variant(_Part):
    """One graph file: the same model in some precision."""

    file: RelativePath
    precision: Literal["fp32", "fp16", "int8"]
    accuracy: Score | None = None
    latency_ms: dict[PositiveInt, NonNegativeFloat] = {}
    """Median milliseconds per run, by batch size, on the machine that exported: on CUDA if it has that, int8 on
    the CPU.
    """
    provider_options: dict[str, dict[str, str]] = {}
    """ONNX Runtime options by execution provider, as measured best at export."""
    golden_tolerance: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Replaces the goldens' own tolerance, which speaks of the fp32 graph."""
    evidence: Evidence | None = Field(default=None, exclude_if=_is_none)
    """Of a lighter graph, what it was published for."""
    unknown: Score | None = Field(default=None, exclude_if=_is_none)
    """Replaces `thresholds.unknown`, which speaks of the fp32 graph."""
    map_tolerance: Annotated[float, Field(gt=0.0, le=2.0)] | None = Field(default=None, exclude_if=_is_none)
    """Replaces `maps.tolerance`, which speaks of the fp32 graph."""


class Calibration(_Part):
    """How far the scores may be read as probabilities, measured on validation pictures."""

    temperature: Annotated[float, Field(gt=0.0)] = 1.0
    """The graph divides the logits by it."""
    ece_before: Score | None = None
    """Expected calibration error without the temperature."""
    ece: Score | None = None
    """Expected calibration error of the scores as served."""
    unknown_coverage: Score | None = None
    """Share of validation pictures that reach `thresholds.unknown`."""
    unknown_accuracy: Score | None = None
    """Accuracy among those."""


class Distribution(_Part):
    """How one measure of the validation set is spread, see `distributions`."""

    edges: Annotated[tuple[float, ...], Field(min_length=1)]
    """Between the bins, ascending; an edge belongs to the bin above it."""
    counts: tuple[NonNegativeInt, ...]
    """Of validation, by bin."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if any(low >= high for low, high in itertools.pairwise(self.edges)):
            raise ValueError(f"the edges {self.edges} do not ascend")
        if len(self.counts) != len(self.edges) + 1 or not sum(self.counts):
            raise ValueError(f"{len(self.edges)} edges make {len(self.edges) + 1} bins, whose counts must not all be 0")
        return self


class Privacy(_Part):
    """What the weights tell of any one training picture: differential privacy, for data with and without it. Says
    nothing of validation pictures, nor of what the weights were before this training.
    """

    epsilon: Annotated[float, Field(ge=0.0)]
    """Bound of the logarithm of how much likelier one picture makes any result: of all steps, by Rényi's accountant."""
    delta: Annotated[float, Field(gt=0.0, lt=1.0)]
    """Chance that the bound does not hold."""
    noise_multiplier: Annotated[float, Field(gt=0.0)]
    """Deviation of the noise on the sum of a batch's gradients, in clipped norms."""
    clip_norm: Annotated[float, Field(gt=0.0)]
    """Largest norm of one picture's gradient."""
    sample_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    """Chance of a picture to join a batch."""
    steps: PositiveInt


class Provenance(_Part):
    """Where the weights come from."""

    run_id: str
    created: str
    """UTC, ISO 8601."""
    data_digest: str
    seed: int | None = None
    git: str | None = None
    """Commit of the training code, with `-dirty` behind it if it had changes."""
    recipe: dict[str, Any] = {}
    libraries: dict[str, str] = {}
    exporter: str | None = None
    """How the graph left torch: the strategy's name, and the opset."""
    parents: tuple[str, ...] = ()
    """What it was made from: run ids, or `name/version` of bundles."""
    privacy: Privacy | None = Field(default=None, exclude_if=_is_none)
    """Of a training with noise; None: what the weights tell of a picture is not bounded."""


class Manifest(_Part):
    """The whole of `manifest.json`."""

    format_version: Literal[1] = 1
    name: Annotated[str, AfterValidator(check_name)]
    version: PositiveInt
    task: Literal["single_label", "multi_label"]
    labels: Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_check_names)]
    input: Annotated[ImageInput | FeaturesInput, Field(discriminator="kind")]
    pixels: PixelSpec | None = None
    thresholds: Thresholds = Thresholds()
    calibration: Calibration | None = None
    distributions: dict[Measure, Distribution] = Field(default={}, exclude_if=operator.not_)
    """Of the validation set, what production is compared with."""
    maps: MapSpec | None = Field(default=None, exclude_if=_is_none)
    """What the graph gives to explain its scores by; None: nothing."""
    thumbnails: ThumbnailSpec | None = Field(default=None, exclude_if=_is_none)
    """Training pictures that the bundle holds; None: none."""
    files: dict[RelativePath, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = {}
    """sha256 of every file but the manifest."""
    golden: Annotated[tuple[Golden, ...], Field(min_length=1)]
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    provenance: Provenance
    metrics: dict[str, float] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.pixels is not None) != (self.input.kind == "image"):
            raise ValueError("pixels must be given for an image input and only there")
        if self.pixels is not None and self.pixels.shape != self.input.shape:
            raise ValueError(f"pixels give {self.pixels.shape}, the input takes {self.input.shape}")
        for golden in self.golden:
            if len(golden.scores) != len(self.labels):
                raise ValueError(f"{golden.file} has {len(golden.scores)} scores for {len(self.labels)} labels")
            if (golden.familiarity is not None) != self.judges_familiarity:
                raise ValueError(f"{golden.file} must have a familiarity if `unknown_by` names it, and only then")
            place_count = math.prod(self.maps.shape) if self.maps else 0
            if len(golden.map or ()) != place_count:
                raise ValueError(f"{golden.file} must have a map of {place_count} places")
        if self.maps is not None and self.pixels is None:
            raise ValueError("maps are of pictures only")
        if self.thumbnails is not None:
            if self.maps is None:
                raise ValueError("thumbnails are found by the features that maps have: there are none without maps")
            if unknown := {label for one in self.thumbnails.pictures for label in one.labels} - {*self.labels}:
                raise ValueError(f"thumbnails are labelled {sorted(unknown)[:5]}, which the model does not know")
        if self.thresholds.labels is not None and len(self.thresholds.labels) != len(self.labels):
            raise ValueError(f"{len(self.thresholds.labels)} label thresholds for {len(self.labels)} labels")
        if self.judges_familiarity and (self.thresholds.unknown is None or self.task != "single_label"):
            raise ValueError("familiarity is judged for an `unknown` threshold of a single-label model only")
        precisions = [variant.precision for variant in self.variants]
        if len(set(precisions)) != len(precisions) or "fp32" not in precisions:
            raise ValueError(f"variants {precisions} must be distinct and include fp32")
        return self

    @property
    def judges_familiarity(self) -> bool:
        """Whether the graph has a second output, float32 `[batch, 1]`."""
        return self.thresholds.unknown_by == "familiarity"

    def unknown_threshold(self, precision: str) -> float | None:
        """The `unknown` threshold of a variant."""
        own = (variant.unknown for variant in self.variants if variant.precision == precision)
        return next((threshold for threshold in own if threshold is not None), self.thresholds.unknown)

    def contract(self) -> dict[str, str]:
        """What the graph must carry in its own metadata, as strings, so that neither a label nor a
        preprocessing step can change beside an unchanged graph.
        """
        return contract(self.labels, self.pixels, self.task, getattr(self.input, "names", ()))


def contract(
    labels: tuple[str, ...], pixels: PixelSpec | None, task: str, features: tuple[str, ...] = ()
) -> dict[str, str]:
    """`Manifest.contract`, for a graph that is older than its manifest."""
    entries = {
        "taxon.labels": json.dumps(labels, ensure_ascii=False),
        "taxon.pixels": json.dumps(pixels.model_dump(mode="json") if pixels else None, sort_keys=True),
        "taxon.task": task,
    }
    if features:
        entries["taxon.features"] = json.dumps(features, ensure_ascii=False)
    return entries


def parse(text: str | bytes) -> Manifest:
    """Reads a manifest.

    Raises:
        BundleError: Not JSON, of a newer format, or not valid; the message names each wrong field.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"manifest.json is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BundleError("manifest.json is not a JSON object")
    version = document.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise BundleError(
            f"manifest.json has format {version}, this release reads up to {FORMAT_VERSION}: upgrade taxon"
        )
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'manifest'}: {fault['msg']}" for fault in error.errors()
        )
        raise BundleError(f"manifest.json is not valid: {faults}") from error

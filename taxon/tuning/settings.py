"""Settings of the service that are worth trying, and the other values of each. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

VARIABLE = "TAXON_"


@dataclass(frozen=True, slots=True)
class Tried:
    """What `taxon serve` is told beyond its defaults; None: its own choice."""

    fronts: int | None = None
    workers: int | None = None
    decoders: int | None = None
    max_batch_size: int | None = None
    variant: str | None = None

    @property
    def named(self) -> dict[str, str]:
        """What is not left to the service, by the name of the setting."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: str(value) for name, value in values.items() if value is not None}

    @property
    def flags(self) -> list[str]:
        """For its command line."""
        return [word for name, value in self.named.items() for word in (f"--{name.replace('_', '-')}", value)]

    @property
    def variables(self) -> dict[str, str]:
        """For its environment."""
        return {VARIABLE + name.upper(): value for name, value in self.named.items()}

    def __str__(self) -> str:
        return " ".join(self.flags) or "defaults"


@dataclass(frozen=True, slots=True)
class Layout:
    """What a server has chosen by itself, as it says when it listens."""

    workers: int
    decoders: int
    fronts: int
    largest_batch: int

    @property
    def cores(self) -> int:
        """That it was granted, if it was told nothing: one worker for each, or one decoder for each but one."""
        return self.decoders + 1 if self.decoders else self.workers


def alternatives(default: Tried, layout: Layout, variants: Sequence[str]) -> Iterator[Tried]:
    """The default with one setting changed, for each value that is worth trying.

    Args:
        default: To start from.
        layout: What it amounts to.
        variants: Precisions that may be served instead of the default's.
    """
    cores = layout.cores
    counts = {
        "fronts": (layout.fronts, (max(1, layout.fronts // 2), layout.fronts * 2)),
        "max_batch_size": (layout.largest_batch, tuple(layout.largest_batch * 2**power // 8 for power in (0, 1, 2, 4))),
    }
    if layout.decoders:
        counts["decoders"] = (layout.decoders, (cores // 2, cores))
    else:
        counts["workers"] = (layout.workers, (cores // 2, cores - 1))
    for name, (usual, others) in counts.items():
        for value in sorted({other for other in others if 1 <= other != usual}):
            yield replace(default, **{name: value})  # type: ignore[arg-type]
    for variant in variants:
        yield replace(default, variant=variant)


def combined(default: Tried, better: Mapping[Tried, float]) -> Tried:
    """All that has been better than the default by itself, together; of each setting the best value.

    Args:
        default: That each differs from in one setting.
        better: What was better, with how good it was.
    """
    changed: dict[str, str | int] = {}
    for tried in sorted(better, key=better.__getitem__):
        for field in fields(tried):
            if (value := getattr(tried, field.name)) != getattr(default, field.name):
                changed[field.name] = value
    return replace(default, **changed)  # type: ignore[arg-type]

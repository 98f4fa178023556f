"""What the data doctor looks for: facts of each file → findings. Reads no files."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taxon.training.dataset.data import Labelled, Sample
from taxon.training.dataset.fingerprints import Fingerprints, alike
from taxon.training.dataset.scan_pictures import Facts

FEW = 10
"""Classes with fewer samples than this in training are near-empty."""
IMBALANCE = 10.0
"""Largest class over smallest, from which it is worth saying."""
TINY = 16
"""Shorter sides below this are worth saying, unless most pictures are so."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about the data that a person should know."""

    kind: str
    severity: str
    """`error`: results would be wrong; `warning`: they may be; `note`."""
    message: str
    paths: tuple[Path, ...] = field(default=())


def examine(data: Labelled, facts: Sequence[Facts], fingerprints: Fingerprints) -> list[Finding]:
    """All findings, errors first.

    Args:
        data: With digests; its faults are the files that could not be read.
        facts: Of every readable sample.
        fingerprints: Of the same, in the same order.
    """
    findings = [
        Finding("unreadable", "error", f"{fault.path.name}: {fault.reason}", (fault.path,)) for fault in data.faults
    ]
    findings += _duplicates(facts, fingerprints, data.labels)
    findings += _classes(data)
    findings += _forms(facts, fingerprints)
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(findings, key=lambda finding: order[finding.severity])


def _duplicates(facts: Sequence[Facts], fingerprints: Fingerprints, labels: Sequence[str]) -> list[Finding]:
    by_digest: dict[str, list[Sample]] = defaultdict(list)
    for fact in facts:
        by_digest[fact.sample.sha256].append(fact.sample)
    findings = [_pair("exact", same, labels, "the same file") for same in by_digest.values() if len(same) > 1]
    for first, second, cosine in alike(fingerprints):
        pair = [facts[first].sample, facts[second].sample]
        if pair[0].sha256 != pair[1].sha256:
            findings.append(_pair("near", pair, labels, f"look alike ({cosine:.2f})"))
    return findings


def _pair(kind: str, samples: Sequence[Sample], labels: Sequence[str], what: str) -> Finding:
    """A duplicate is worst across labels, bad across splits, and worth knowing within one."""
    names = ", ".join(f"{sample.path.parent.name}/{sample.path.name}" for sample in samples)
    classes = sorted({", ".join(sample.names(labels)) for sample in samples})
    splits = sorted({sample.split for sample in samples})
    paths = tuple(sample.path for sample in samples)
    severity = "error" if kind == "exact" else "warning"
    if len(classes) > 1:
        message = f"{names}: {what}, labelled {' and '.join(classes)}"
        return Finding(f"{kind}_duplicate_across_labels", severity, message, paths)
    if len(splits) > 1:
        message = f"{names}: {what}, in {' and '.join(splits)}"
        return Finding(f"{kind}_duplicate_across_splits", severity, message, paths)
    return Finding(f"{kind}_duplicate", "warning" if kind == "exact" else "note", f"{names}: {what}", paths)


def _classes(data: Labelled) -> list[Finding]:
    findings = []
    splits = {sample.split for sample in data.samples}
    counts = data.counts("train" if "train" in splits else None)
    for label, count in counts.items():
        if count < FEW:
            findings.append(Finding("few_samples", "warning", f"class {label!r} has {count} samples to train on"))
    smallest, largest = min(counts.values()), max(counts.values())
    if largest > IMBALANCE * max(1, smallest):
        message = f"the largest class has {largest} samples, the smallest {smallest}: see --balance"
        findings.append(Finding("imbalance", "warning", message))
    return findings


def _forms(facts: Sequence[Facts], fingerprints: Fingerprints) -> list[Finding]:
    findings = []
    turned = [fact for fact in facts if fact.orientation not in (0, 1)]
    if turned:
        message = f"{len(turned)} of {len(facts)} pictures are turned by EXIF; Taxon applies that, other tools may not"
        findings.append(Finding("orientation", "note", message, tuple(fact.sample.path for fact in turned)))
    modes = Counter(fact.mode for fact in facts)
    for mode, count in modes.items():
        if mode not in ("RGB", "L"):
            paths = tuple(fact.sample.path for fact in facts if fact.mode == mode)
            findings.append(
                Finding("mode", "note", f"{count} of {len(facts)} pictures are {mode}, and are converted", paths)
            )
    flat = [fact for fact, flat in zip(facts, fingerprints.flat, strict=True) if flat]
    if flat:
        message = f"{len(flat)} of {len(facts)} pictures show a single colour"
        findings.append(Finding("flat", "warning", message, tuple(fact.sample.path for fact in flat)))
    tiny = [fact for fact in facts if min(fact.size) < TINY]
    if tiny and len(tiny) < len(facts) / 2:
        message = f"{len(tiny)} of {len(facts)} pictures are smaller than {TINY} pixels"
        findings.append(Finding("tiny", "warning", message, tuple(fact.sample.path for fact in tiny)))
    return findings

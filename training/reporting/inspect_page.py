"""What the data doctor found as one HTML page, with thumbnails: for those who decide about the data."""

from collections import Counter
from collections.abc import Mapping, Sequence

from taxon.training.dataset.data import SPLITS, Labelled
from taxon.training.dataset.findings import Finding
from taxon.training.dataset.scan_pictures import Facts
from taxon.training.reporting import pages

THUMBNAILS = 4
"""Of one finding."""
FINDINGS = 200
"""Of one kind."""
MEANINGS = {
    "unreadable": ("Files that cannot be read", "Training sets them aside. Repair or delete them."),
    "exact_duplicate_across_splits": (
        "The same file in two splits",
        "What was learnt by heart is asked again, so results look better than they are. Delete one of each, or let "
        "`taxon data split` write another split.",
    ),
    "exact_duplicate_across_labels": ("The same file with two labels", "One of the labels is wrong. Delete one file."),
    "exact_duplicate": ("The same file twice in one split", "It counts twice. Delete one unless that is wanted."),
    "near_duplicate_across_splits": (
        "Pictures in two splits that look alike",
        "As with equal files, results look better than they are. Look at them: some may only resemble each other.",
    ),
    "near_duplicate_across_labels": (
        "Pictures with two labels that look alike",
        "If they show the same thing, one label is wrong.",
    ),
    "near_duplicate": ("Pictures in one split that look alike", "Harmless if there are few: frames of one film, say."),
    "few_samples": ("Classes with few pictures", "They will be learnt badly, and their figures will be uncertain."),
    "imbalance": ("Classes of very different size", "Rare classes are easily neglected."),
    "orientation": ("Pictures turned by EXIF", "Shown here as training sees them."),
    "mode": ("Pictures that are not in plain colour or grey", "Shown here as training sees them."),
    "flat": ("Pictures of a single colour", "Most likely something went wrong when they were taken or copied."),
    "tiny": ("Very small pictures", "Enlarged to the network's input they show little."),
}


def write_page(title: str, found: Labelled, facts: Sequence[Facts], kinds: Mapping[str, Sequence[Finding]]) -> str:
    """The page.

    Args:
        title: What was looked at.
        found: The data, readable pictures only.
        facts: Of these.
        kinds: The findings by kind, the worst first.
    """
    by_path = {fact.sample.path: fact for fact in facts}
    return pages.render(
        "inspect.html",
        title=title,
        data=found,
        picture_count=len(facts),
        severities=Counter(finding.severity for findings in kinds.values() for finding in findings),
        classes=_classes(found),
        sizes=_sizes(facts) if facts else "",
        kinds=kinds,
        meanings=MEANINGS,
        findings_shown=FINDINGS,
        shown=lambda finding: [by_path[path] for path in finding.paths if path in by_path][:THUMBNAILS],
    )


def _classes(found: Labelled) -> tuple[list[str], list[list[str]]]:
    """The head and the rows of the table."""
    splits = [split for split in (*SPLITS, "") if found.split(split)]
    counts = {split: found.counts(split) for split in splits}
    rows = [[label, *(f"{counts[split][label]:,}" for split in splits)] for label in found.labels]
    return ["class", *(split or "pictures" for split in splits)], rows


def _sizes(facts: Sequence[Facts]) -> str:
    sides = sorted(min(fact.size) for fact in facts)
    forms = ", ".join(f"{form} {count:,}" for form, count in Counter(fact.form for fact in facts).most_common())
    return f"{forms}. Shorter side {sides[0]} to {sides[-1]} pixels, median {sides[len(sides) // 2]}."

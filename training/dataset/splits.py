"""Which samples validate: by a stable hash, so that the answer depends on the pictures and on nothing else.

Samples of one group (by default: with equal bytes) always land in the same split.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence


def validation_groups(groups: Sequence[str], strata: Sequence[str], fraction: float, seed: int = 0) -> frozenset[str]:
    """Chooses the groups that validate.

    Groups are taken in the order of their hash; one joins validation while its most common stratum still lacks
    samples there. So each stratum comes as near to `fraction` as whole groups allow, and adding pictures moves
    few of the others. A stratum with two groups or more keeps one on each side.

    Args:
        groups: The group of each sample.
        strata: The stratum (usually the label) of each sample.
        fraction: Share of each stratum that validates, in (0, 1).
        seed: Another seed gives another split.

    Returns:
        The groups of the validation split.
    """
    members: dict[str, Counter[str]] = defaultdict(Counter)
    for group, stratum in zip(groups, strata, strict=True):
        members[group][stratum] += 1
    main = {group: counts.most_common(1)[0][0] for group, counts in members.items()}
    group_counts = Counter(main.values())
    wanted = {stratum: max(1, round(count * fraction)) for stratum, count in Counter(strata).items()}
    taken: Counter[str] = Counter()
    taken_groups: Counter[str] = Counter()
    chosen = set()
    for group in sorted(members, key=lambda group: _digest(f"{seed}:{group}")):
        stratum = main[group]
        left = group_counts[stratum] - taken_groups[stratum]
        if left > 1 and taken[stratum] + members[group][stratum] <= wanted[stratum]:
            chosen.add(group)
            taken.update(members[group])
            taken_groups[stratum] += 1
    for stratum in sorted(wanted):
        # Every group was larger than the share: the smallest validates, if another is left to train on.
        if taken[stratum] == 0 and group_counts[stratum] > 1:
            chosen.add(min((group for group in main if main[group] == stratum), key=lambda g: (members[g].total(), g)))
    return frozenset(chosen)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

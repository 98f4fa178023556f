"""A round as one HTML page: what came in, what was decided of it, what came of it, and why."""

from taxon.training.reporting import pages
from taxon.training.rounds.state import State
from taxon.training.rounds.verdict import ClassTest, Verdict
from taxon.training.rounds.versions import About
from taxon.training.runs.folder import Run


def write_page(state: State, judged: Verdict, run: Run, about: About) -> str:
    """The page.

    Args:
        state: Of the round.
        judged: What came of the comparison.
        run: That was trained.
        about: The version of the data.
    """
    split = "test" if run.samples("test") else "validation"
    lead = (
        f"Version {state.version} took the place of version {state.production}."
        if state.version
        else f"Version {state.production} stays: {'; '.join(state.reasons)}."
    )
    return pages.render(
        "round.html",
        title=f"Round {state.number} of {state.name}",
        lead=lead,
        state=state,
        judged=judged,
        split=split,
        about=about,
        classes=[_class_row(test) for test in judged.classes],
        counts=[[what, f"{count:,}"] for what, count in about.counts.items()],
        review=[[what, f"{count:,}"] for what, count in (state.review or {}).items()],
        people=[[who[:12], f"{share:.1%}"] for who, share in sorted((state.reliability or {}).items(), key=_second)],
        metrics=run.metrics(),
    )


def _second(pair: tuple[str, float]) -> float:
    return pair[1]


def _class_row(test: ClassTest) -> list[str]:
    before = "new" if test.before is None else f"{test.before:.1%}"
    return [test.label, before, f"{test.after:.1%}", f"{test.count:,}", f"{test.p_value:.2g}"]

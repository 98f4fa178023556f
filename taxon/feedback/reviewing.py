"""Reviewing in a terminal: one picture after the other, one line of a person's for each."""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.markup import escape

from taxon.feedback.errors import ReviewError
from taxon.feedback.review import Case, decide, undo
from taxon.feedback.shown import shown
from taxon.feedback.store import Store

HELP = "a accept · c LABEL correct (c alone: none of the classes) · r reject · s skip · u undo the last · q quit"


def review(store: Store, found: Sequence[Case], reviewer: str, console: Console, ask: Callable[[], str]) -> int:
    """Asks about each picture until there are no more, or the person has had enough. Every decision lasts at once.

    Args:
        store: What is kept.
        found: To decide of.
        reviewer: Who is asked.
        console: Shows.
        ask: Gives the next line; EOFError ends the review.

    Returns:
        How many were decided.
    """
    done: list[int] = []
    number = 0
    while number < len(found):
        case = found[number]
        _show(store, case, f"{number + 1} of {len(found)}", console)
        try:
            word, _, label = ask().strip().partition(" ")
        except EOFError:
            break
        try:
            if word in ("a", "r"):
                decide(store, case, "accept" if word == "a" else "reject", reviewer)
                done.append(number)
            elif word == "c":
                decide(store, case, "correct", reviewer, [label] if label.strip() else [])
                done.append(number)
            elif word == "u":
                number = done.pop() if done else number
                undo(store, reviewer, [found[number].picture], reviewer)
                continue
            elif word == "q":
                break
            elif word != "s":
                console.print(HELP, markup=False)
                continue
        except ReviewError as error:
            console.print(f"[red]{escape(str(error))}[/]")
            continue
        number += 1
    return len(done)


def _show(store: Store, case: Case, place: str, console: Console) -> None:
    console.rule(f"{place} · {case.picture[:12]}", align="left")
    if console.is_terminal:
        console.print(shown(store.pictures.read(case.picture, case.extension)))
    answer = case.answer
    score = "" if answer.score is None else f" ({answer.score:.2f})"
    said = ", ".join(answer.answered[:1]) or ("unknown" if answer.unknown else "nothing")
    console.print(f"model   {escape(said)}{score}, {escape(answer.model)} version {answer.version}", highlight=False)
    for voice in case.voices:
        labels = ", ".join(voice.labels) or "none of these"
        new = " (new class)" if voice.proposed else ""
        note = f": {voice.note}" if voice.note else ""
        console.print(f"person  {escape(labels)}{new}, {voice.contributor[:8]}{escape(note)}", highlight=False)
    if case.suspicion is not None:
        rather = case.suspicion.likely
        console.print(f"wrong   {case.suspicion.suspicion:.0%}, rather {escape(rather)}", highlight=False)
    if case.decision is not None:
        decided = f"{case.decision.verdict} by {case.decision.reviewer}"
        console.print(f"before  {escape(decided)}; somebody has said something else since", highlight=False)

"""One round: what people say is reviewed, merged, trained on, compared, and becomes the default or does not.

Every step leaves something whole behind before the next begins, and looks for it first: a round that was killed goes on
where it was. What comes in meanwhile is the next round's.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from taxon.bundle import atomic_files, version_labels
from taxon.bundle import store as bundles
from taxon.bundle.signing import Sign
from taxon.bundle.store import Bundle
from taxon.feedback import rules
from taxon.feedback.exporting import LIST
from taxon.feedback.review import cases
from taxon.feedback.rules import Rules
from taxon.feedback.store import Store
from taxon.training.dataset import data, tables
from taxon.training.exporting import bundling
from taxon.training.exporting.bundling import Settings
from taxon.training.exporting.of_run import from_run
from taxon.training.finetune import finetune
from taxon.training.releases import held_out, promotions
from taxon.training.releases.promotions import PromotionError
from taxon.training.rounds import page, start, verdict, versions
from taxon.training.rounds.merge import Unchanged, Wanted, merge
from taxon.training.rounds.state import State, held, keep, now, unfinished
from taxon.training.rounds.suspects import suspects
from taxon.training.rounds.versions import Basis
from taxon.training.runs.folder import Run

RUN, MODELS, WEIGHTS, REPORT = "run", "models", "start.pt", "report.html"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What a round is to do."""

    name: str
    """Of the model."""
    models: Path
    runs: Path
    """Where the run behind the first version is."""
    data: Path
    """Of the versions of the data."""
    rounds: Path
    """Of the rounds."""
    rules: Rules = field(default_factory=Rules)
    suspect: bool = True
    """Whether labels are suspected anew first."""
    wanted: Wanted = field(default_factory=Wanted)
    at_least: int = 1
    """New or changed pictures; with fewer there is nothing to do."""
    allowed_loss: float = 0.0
    require_gain: bool = False
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Over the recipe, by section."""
    settings: Settings = field(default_factory=Settings)


def hold(order: Order, store: Store, say: Say = lambda _: None) -> State:
    """Holds a round, or goes on with the one that was interrupted. The caller is `alone`.

    Args:
        order: What it is to do.
        store: What people say.
        say: Told of each step.

    Raises:
        TrainingError, BundleError, StoreError, SealError, OSError: It cannot go on now; called again it does.
    """
    state = unfinished(order.rounds, order.name) or _begun(order)
    folder = order.rounds / str(state.number)
    say(f"round {state.number} of {state.name}: from version {state.production}")
    served = promotions.existing(order.models, order.name, state.production)
    before = start.find_run([order.runs, order.rounds], state.production_run, f"version {state.production}")

    if state.review is None:
        _reviewed(order, store, before, state)
        keep(folder, state)
        say(f"reviewed: {_counted(state.review or {})}")

    if state.data_version is None and (nothing := _merged(order, store, before, state)):
        state.outcome, state.reasons = "nothing", [nothing]
        shutil.rmtree(folder)
        say(nothing)
        return state
    keep(folder, state)
    version = order.data / str(state.data_version)
    say(f"data version {state.data_version}: {_counted(state.counts)}")

    run = _trained(order, folder, version, before, state, say)
    state.run_id = run.id
    keep(folder, state)

    candidate = _exported(order, folder, run, served)
    files, recent = held_out.from_run(run.folder), versions.recent(version)
    judged = verdict.judge(served, candidate, files, recent, order.allowed_loss, order.require_gain)
    state.verdict, state.reasons = asdict(judged), [*judged.reasons]
    keep(folder, state)
    say(f"held out: {verdict.told(judged.held_out)}")

    if not state.reasons:
        _promoted(order, candidate, state)
    state.outcome = "refused" if state.reasons else "promoted"
    state.finished = now()
    atomic_files.write(folder / REPORT, page.write_page(state, judged, run, versions.about(version)))
    keep(folder, state)
    say(f"version {state.version} is the default now" if state.version else f"refused: {'; '.join(state.reasons)}")
    return state


def _begun(order: Order) -> State:
    served = start.production(order.models, order.name, [order.runs, order.rounds])
    numbers = [int(entry.name) for entry in order.rounds.iterdir() if entry.name.isdecimal()]
    number = max(numbers, default=0) + 1
    state = State(uuid4().hex, number, order.name, now(), served.version, served.run.id)
    atomic_files.make_folder(order.rounds / str(number))
    keep(order.rounds / str(number), state)
    return state


def _reviewed(order: Order, store: Store, before: Run, state: State) -> None:
    """Rules decide what is plain."""
    if order.suspect and before.facts["task"] == "single_label":
        found = suspects(store, cases(store, model=order.wanted.model), before)
        store.suspect(found.suspicions)
        state.reliability = found.reliability
    state.review = dict(rules.apply(store, order.rules, order.wanted.model))


def _merged(order: Order, store: Store, before: Run, state: State) -> str:
    """Writes the version of the data that this round is about; or says why there is nothing to do."""
    for number in versions.numbers(order.data):
        about = versions.about(order.data / str(number))
        if about.made_for == state.id:  # this round was killed before it could note that
            break
    else:
        made = merge(store, order.data, _basis(order, before), order.wanted, state.id)
        if isinstance(made, Unchanged):
            return ": ".join(["nothing new to learn from", *([_counted(made.counts)] if made.counts else [])])
        about = made.about
    changed = sum(about.counts.get(key, 0) for key in ("merged", "relabelled", "withdrawn"))
    same = [
        other
        for other in held(order.rounds)
        if (other.outcome, other.production, other.data_digest) == ("refused", state.production, about.digest)
    ]
    if changed < order.at_least or same:
        versions.remove(order.data / str(about.version), store)
        if same:
            return f"nothing new since round {same[-1].number}, which was refused"
        return f"{changed} pictures are new or changed, a round is to have {order.at_least} or more"
    state.data_version, state.data_digest = about.version, about.digest
    state.counts, state.new_labels = about.counts, [*about.new_labels]
    return ""


def _basis(order: Order, before: Run) -> Basis:
    """What the served version was trained on: what a refused round had merged is merged anew, or not."""
    root = Path(before.facts["data"])
    if root.parent == order.data.resolve() and root.name.isdecimal():
        return versions.from_version(order.data, int(root.name))
    return versions.from_run(before)


def _trained(order: Order, folder: Path, version: Path, before: Run, state: State, say: Say) -> Run:
    """Goes on from the served version's weights; an interrupted training goes on by itself."""
    run = folder / RUN
    if (run / "run.json").is_file() and _has_changed(Run.open(run), version):
        say("pictures have left the data since this training began: it begins anew")
        shutil.rmtree(run)
    weights = folder.resolve() / WEIGHTS
    if not (run / "run.json").is_file():
        labels = tables.manifest(tables.read_table(version / LIST)).labels  # a new class may have left with somebody
        start.extended(before.checkpoint(), labels, state.number).save(weights)
    changes = {section: dict(part) for section, part in order.changes.items()}
    changes.setdefault("run", {}).setdefault("seed", state.number)
    recipe = start.recipe_for(before, weights, version / LIST, changes)
    return finetune(recipe, run)


def _has_changed(run: Run, version: Path) -> bool:
    """Whether somebody has left since the training began."""
    there = {version.resolve() / row.path for row in versions.rows(version)}
    return any(sample.path not in there for split in data.SPLITS for sample in run.samples(split))


def _exported(order: Order, folder: Path, run: Run, served: Bundle) -> Bundle:
    """Proven and published where nobody serves it."""
    if (number := start.already_published(folder / MODELS, order.name, run.id)) is not None:
        return bundles.read(folder / MODELS, order.name, number)
    lighter = tuple(variant.precision for variant in served.manifest.variants if variant.precision != "fp32")
    settings = order.settings
    if not settings.precisions and lighter:
        settings = replace(settings, precisions=lighter)
    return bundling.publish(from_run(run.folder), folder / MODELS, order.name, settings).bundle


def _promoted(order: Order, candidate: Bundle, state: State) -> None:
    """Publishes the candidate where it is served, and makes it the default: a server that watches takes it."""
    number = start.already_published(order.models, order.name, state.run_id)
    try:
        if number is None:
            promotions.keep_default(order.models, order.name, state.production)
            number = copied(candidate, order.models, order.name, order.settings.sign).manifest.version
        if version_labels.read(order.models, order.name).get(version_labels.STABLE) != number:
            promotions.promote(order.models, order.name, number, state.production, state.verdict, None)
    except PromotionError as error:
        state.reasons.append(str(error))
        return
    state.version = number


def copied(bundle: Bundle, root: Path, name: str, sign: Sign | None) -> Bundle:
    """Publishes a bundle again, elsewhere: the same files under the next version there.

    Raises:
        BundleError: It has changed.
        OSError: The repository cannot be written.
    """
    with bundles.staging(root, name) as staged:
        for file in bundle.manifest.files:
            (staged / file).parent.mkdir(parents=True, exist_ok=True)
            (staged / file).write_bytes(bundle.read(file))
        return bundles.publish(staged, bundle.manifest, sign)


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing"

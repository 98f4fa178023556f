"""The command `taxon feedback`: what people say of answers, on its way to a server and in the folder of its store."""

import argparse
import getpass
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from taxon import connection
from taxon.client import Client, feedback_request
from taxon.errors import TaxonError
from taxon.feedback import agreement, label_studio, review, rules
from taxon.feedback.decisions import Verdict
from taxon.feedback.errors import ReviewError, StoreError
from taxon.feedback.exporting import Wanted, export
from taxon.feedback.forgetting import forget
from taxon.feedback.options import add_store, opened
from taxon.feedback.sealing import SealError
from taxon.feedback.store import Bounds

NO_LIMIT = 10**9
"""What annotators say at once was said over days."""


def main(argv: list[str]) -> int:
    """Runs the command. Returns 0; 1 if the server refused; 2 if it cannot be done as called."""
    options = _parser().parse_args(argv)
    try:
        options.run(options)
    except TaxonError as error:
        sys.stderr.write(f"taxon feedback: {error}\n")
        return 1
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"taxon feedback: {where}{error.strerror}\n")
        return 2
    except (ReviewError, StoreError, SealError, ValueError) as error:
        sys.stderr.write(f"taxon feedback: {error}\n")
        return 2
    return 0


def _submit(options: argparse.Namespace) -> None:
    request = feedback_request(
        options.label or (),
        contributor=options.contributor,
        request_id=options.request_id,
        picture=options.picture,
        share=options.share,
        license=options.license,
        note=options.note,
        model=options.model,
        version=options.version,
    )
    server = connection.from_options(options)
    with Client(server) as client:
        response = client.submit_feedback(request)
    told = {"request_id": response.request_id, "proposed_labels": [*response.proposed_labels]}
    sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")


def _list(options: argparse.Namespace) -> None:
    with opened(options) as store:
        if options.figures:
            sys.stdout.write(json.dumps(store.figures()) + "\n")
            return
        only = options.contributor and store.pseudonyms.of(options.contributor)
        for kept in store.said():
            if not only or kept.contributor == only:
                sys.stdout.write(json.dumps(kept._asdict(), ensure_ascii=False) + "\n")


def _forget(options: argparse.Namespace) -> None:
    with opened(options) as store:
        done = forget(store, options.contributor, options.runs, options.models)
    sys.stdout.write(json.dumps(asdict(done), ensure_ascii=False) + "\n")


def _export(options: argparse.Namespace) -> None:
    wanted = Wanted(options.share, options.proposals, options.none_label, options.model)
    with opened(options) as store:
        counts = export(store, options.out, wanted)
    sys.stdout.write(json.dumps(counts) + "\n")


def _review(options: argparse.Namespace) -> None:
    with opened(options) as store:
        if options.suspect:
            store.suspect(agreement.judged(review.cases(store, model=options.model))[1])
        chosen = rules.from_options(options)
        if chosen != rules.Rules():
            sys.stdout.write(json.dumps(rules.apply(store, chosen, options.model)) + "\n")
            return
        found = review.cases(store, model=options.model)
        if options.list:
            for case in found:
                sys.stdout.write(json.dumps(_told(case), ensure_ascii=False) + "\n")
            return
        from taxon.feedback.reviewing import HELP
        from taxon.feedback.reviewing import review as reviewed

        console = Console()
        console.print(HELP, markup=False)
        count = reviewed(store, found, _reviewer(options), console, lambda: input("> "))
        console.print(f"{count} decided, {len(review.cases(store, model=options.model))} wait", highlight=False)


def _told(case: review.Case) -> dict[str, object]:
    return {
        "picture": case.picture,
        "said": [{"labels": labels, "count": count} for labels, count in case.said],
        "contributors": [voice.contributor for voice in case.voices],
        "answered": case.answer.answered,
        "score": case.answer.score,
        "model": case.answer.model,
        "version": case.answer.version,
        "suspicion": case.suspicion and case.suspicion.suspicion,
        "likely": case.suspicion and case.suspicion.likely,
    }


def _decide(options: argparse.Namespace) -> None:
    with opened(options) as store:
        found = [case for case in review.cases(store, pending=False) if case.picture.startswith(options.picture)]
        if len(found) != 1:
            raise ReviewError(f"{len(found)} pictures of which somebody has spoken begin with {options.picture!r}")
        verdict: Verdict = "accept" if options.accept else "reject" if options.reject else "correct"
        decision = review.decide(store, found[0], verdict, _reviewer(options), options.label or (), options.why)
        sys.stdout.write(json.dumps(decision._asdict(), ensure_ascii=False) + "\n")


def _undo(options: argparse.Namespace) -> None:
    with opened(options) as store:
        undone = review.undo(store, _reviewer(options), options.picture, options.decided_by)
    for decision in undone:
        sys.stdout.write(json.dumps(decision._asdict(), ensure_ascii=False) + "\n")


def _agreement(options: argparse.Namespace) -> None:
    with opened(options) as store:
        found = review.cases(store, pending=False, model=options.model)
    said = [["|".join(sorted(voice.labels)) for voice in case.voices] for case in found]
    told = {
        "pictures": len(found),
        "shared": sum(len(case.voices) > 1 for case in found),
        "contradictory": sum(case.agreed is None for case in found),
        "krippendorff_alpha": agreement.krippendorff_alpha(said),
        "contributors": [asdict(person) for person in agreement.contributors(found)],
    }
    sys.stdout.write(json.dumps(told) + "\n")


def _export_tasks(options: argparse.Namespace) -> None:
    with opened(options) as store:
        chosen = options.only and {line.strip() for line in options.only.read_text().splitlines() if line.strip()}
        unsaid = [one for one in store.unsaid() if options.unlabelled or (chosen and one[0] in chosen)]
        found = [
            case for case in review.cases(store) if not options.unlabelled and (not chosen or case.picture in chosen)
        ]
        url = options.url if options.url is not None else f"{label_studio.URL}{options.out.resolve().name}/"
        sys.stdout.write(json.dumps({"tasks": label_studio.write(store, options.out, found, unsaid, url)}) + "\n")


def _import_tasks(options: argparse.Namespace) -> None:
    with opened(options, Bounds(max_said_per_hour=NO_LIMIT)) as store:
        counts = label_studio.read(store, options.file, "share" if options.share else "train", options.license)
    sys.stdout.write(json.dumps(counts) + "\n")


def _reviewer(options: argparse.Namespace) -> str:
    try:
        return options.reviewer or getpass.getuser()
    except (OSError, KeyError) as error:  # a container's user without a name
        raise ReviewError("say who decides with --reviewer NAME") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="What people say of answers: send it to a server, or look after the place in which a server keeps "
        "it. Every answer is JSON."
    )
    commands = parser.add_subparsers(
        required=True, metavar="submit|list|review|decide|undo|agreement|export|export-tasks|import-tasks|forget"
    )
    folder = argparse.ArgumentParser(add_help=False)
    add_store(folder)

    submit = commands.add_parser("submit", help="say what a picture shows")
    submit.set_defaults(run=_submit)
    subject = submit.add_mutually_exclusive_group(required=True)
    subject.add_argument("--picture", type=Path, metavar="FILE", help="the picture")
    subject.add_argument("--request-id", default="", metavar="ID", help="of an answer, instead of the picture")
    fits = submit.add_mutually_exclusive_group(required=True)
    fits.add_argument("--label", action="append", help="that fits; may be given several times for multi-label models")
    fits.add_argument("--none-of-these", action="store_true", help="none of the model's classes fits")
    submit.add_argument("--contributor", required=True, help="who says so; the server keeps a keyed hash of it")
    submit.add_argument("--share", action="store_true", help="consent to passing it on, not only to training on it")
    submit.add_argument("--license", default="", metavar="SPDX", help="of the picture, such as CC-BY-4.0")
    submit.add_argument("--note", default="", help="what else there is to say")
    submit.add_argument("--model", default="", help="with --picture; default: the server's only one")
    submit.add_argument("--version", default="", help="with --picture; default: the model's default version")
    connection.add_options(submit)

    listing = commands.add_parser("list", parents=[folder], help="print what was said, a line of JSON each")
    listing.set_defaults(run=_list)
    listing.add_argument("--contributor", default="", help="only of this one, by their own name")
    listing.add_argument("--figures", action="store_true", help="only how much there is")

    reviewer = argparse.ArgumentParser(add_help=False)
    reviewer.add_argument(
        "--reviewer", default="", metavar="NAME", help="who decides (default: the user of this machine)"
    )
    reviewing = commands.add_parser(
        "review",
        parents=[folder, reviewer],
        help="decide of what was said: in the terminal, or by the rules that are given",
    )
    reviewing.set_defaults(run=_review)
    reviewing.add_argument("--model", default="", help="only what was said of this model's answers")
    reviewing.add_argument("--list", action="store_true", help="only print what waits, a line of JSON each")
    reviewing.add_argument(
        "--suspect",
        action="store_true",
        help="first estimate how likely each label is to be wrong, from the answers that are kept and from how far "
        "contributors are right; `taxon data suspects` does so by what a model has learnt",
    )
    rules.add_rules(reviewing)

    deciding = commands.add_parser("decide", parents=[folder, reviewer], help="decide of one picture")
    deciding.set_defaults(run=_decide)
    deciding.add_argument("picture", help="its SHA-256, or the beginning of it")
    verdict = deciding.add_mutually_exclusive_group(required=True)
    verdict.add_argument("--accept", action="store_true", help="what people say is right")
    verdict.add_argument("--reject", action="store_true", help="the picture is not to be learnt from")
    verdict.add_argument("--label", action="append", help="that is right instead; may be given several times")
    verdict.add_argument("--none-of-these", action="store_true", help="none of the model's classes is right")
    deciding.add_argument("--why", default="", help="recorded")

    undoing = commands.add_parser(
        "undo", parents=[folder, reviewer], help="take decisions back: what was decided before counts again"
    )
    undoing.set_defaults(run=_undo)
    undoing.add_argument("picture", nargs="*", help="SHA-256; none: all that --decided-by has decided")
    undoing.add_argument("--decided-by", default="", metavar="NAME", help="only of this reviewer; `rule`: of the rules")

    agreeing = commands.add_parser(
        "agreement", parents=[folder], help="print how far contributors agree, and how far each is right"
    )
    agreeing.set_defaults(run=_agreement)
    agreeing.add_argument("--model", default="", help="only what was said of this model's answers")

    exporting = commands.add_parser(
        "export", parents=[folder], help="write what was decided, or else people agree on, as a labelled folder"
    )
    exporting.set_defaults(run=_export)
    exporting.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new, or empty")
    exporting.add_argument("--share", action="store_true", help="only what may be passed on")
    exporting.add_argument("--proposals", action="store_true", help="also labels that the model does not have")
    exporting.add_argument("--none-label", default="", metavar="LABEL", help="label of what is none of the classes")
    exporting.add_argument("--model", default="", help="only what was said of this model's answers")

    tasks_out = commands.add_parser(
        "export-tasks", parents=[folder], help="write what waits for a decision as tasks of Label Studio"
    )
    tasks_out.set_defaults(run=_export_tasks)
    tasks_out.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new, or empty")
    which = tasks_out.add_mutually_exclusive_group()
    which.add_argument("--unlabelled", action="store_true", help="instead, captured pictures that nobody has spoken of")
    which.add_argument(
        "--only", type=Path, metavar="FILE", help="only these, one SHA-256 a line, as `taxon data next` prints them"
    )
    tasks_out.add_argument(
        "--url",
        metavar="PREFIX",
        help="before pictures/… in the address of a picture; default: local files, with the parent of --out as "
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT",
    )
    tasks_in = commands.add_parser(
        "import-tasks", parents=[folder], help="take annotations of Label Studio, to be reviewed like other words"
    )
    tasks_in.set_defaults(run=_import_tasks)
    tasks_in.add_argument("file", type=Path, help="exported as JSON or JSON-MIN; its pictures are in the store")
    tasks_in.add_argument("--share", action="store_true", help="the annotators consent to passing it on")
    tasks_in.add_argument("--license", default="", metavar="SPDX", help="of the pictures")

    leaving = commands.add_parser(
        "forget",
        parents=[folder],
        help="remove a contributor's pictures and rows, here and in exports, and say which versions have seen them",
    )
    leaving.set_defaults(run=_forget)
    leaving.add_argument("contributor", help="by their own name")
    leaving.add_argument(
        "--runs",
        type=Path,
        metavar="FOLDER",
        action="append",
        default=[],
        help="runs of `taxon train`, or rounds of `taxon round`, to see which saw them; may be given several times",
    )
    leaving.add_argument("--models", type=Path, metavar="FOLDER", help="repository, to see what came of those")
    return parser

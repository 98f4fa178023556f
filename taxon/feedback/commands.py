"""The command `taxon feedback`: what people say of answers, on its way to a server and in the folder of its store."""

import argparse
import json
import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

from taxon import connection
from taxon.client import Client, feedback_request
from taxon.errors import TaxonError
from taxon.feedback.errors import StoreError
from taxon.feedback.exporting import Wanted, export
from taxon.feedback.forgetting import forget
from taxon.feedback.opening import place_of
from taxon.feedback.sealing import Seal, SealError
from taxon.feedback.store import Store


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
    except (StoreError, SealError, ValueError) as error:
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
    with Client(
        server.target,
        credentials=server.credentials,
        key=server.key,
        server_name=server.server_name,
    ) as client:
        response = client.submit_feedback(request)
    told = {"request_id": response.request_id, "proposed_labels": [*response.proposed_labels]}
    sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")


def _list(options: argparse.Namespace) -> None:
    with closing(_store(options)) as store:
        if options.figures:
            sys.stdout.write(json.dumps(store.figures()) + "\n")
            return
        only = options.contributor and store.pseudonyms.of(options.contributor)
        for kept in store.said():
            if not only or kept.contributor == only:
                sys.stdout.write(json.dumps(kept._asdict(), ensure_ascii=False) + "\n")


def _forget(options: argparse.Namespace) -> None:
    with closing(_store(options)) as store:
        done = forget(store, options.contributor, options.runs, options.models)
    sys.stdout.write(json.dumps(asdict(done), ensure_ascii=False) + "\n")


def _export(options: argparse.Namespace) -> None:
    wanted = Wanted(options.share, options.proposals, options.none_label, options.model)
    with closing(_store(options)) as store:
        counts = export(store, options.out, wanted)
    sys.stdout.write(json.dumps(counts) + "\n")


def _store(options: argparse.Namespace) -> Store:
    place = place_of(options.store, options.pictures)
    if isinstance(place, Path) and not place.is_dir():
        raise StoreError(f"{place} is not there: give the folder of `taxon serve --feedback`")
    return Store(place, seal=options.key and Seal(options.key))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="What people say of answers: send it to a server, or look after the place in which a server keeps "
        "it. Every answer is JSON."
    )
    commands = parser.add_subparsers(required=True, metavar="submit|list|export|forget")
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("--store", required=True, metavar="PLACE", help="that of `taxon serve --feedback`")
    folder.add_argument("--pictures", metavar="URL", help="that of `taxon serve --feedback-pictures`")
    folder.add_argument("--key", type=Path, metavar="FILE", help="that of `taxon serve --feedback-key`")

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

    exporting = commands.add_parser(
        "export", parents=[folder], help="write what people agree on as a labelled folder with lists"
    )
    exporting.set_defaults(run=_export)
    exporting.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="new, or empty")
    exporting.add_argument("--share", action="store_true", help="only what may be passed on")
    exporting.add_argument("--proposals", action="store_true", help="also labels that the model does not have")
    exporting.add_argument("--none-label", default="", metavar="LABEL", help="label of what is none of the classes")
    exporting.add_argument("--model", default="", help="only what was said of this model's answers")

    leaving = commands.add_parser(
        "forget",
        parents=[folder],
        help="remove a contributor's pictures and rows, here and in exports, and say which versions have seen them",
    )
    leaving.set_defaults(run=_forget)
    leaving.add_argument("contributor", help="by their own name")
    leaving.add_argument("--runs", type=Path, metavar="FOLDER", help="runs of `taxon train`, to see which saw them")
    leaving.add_argument("--models", type=Path, metavar="FOLDER", help="repository, to see what came of those")
    return parser

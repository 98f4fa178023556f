"""The command `taxon`: a table of commands, each imported only when it is called, so that `--help` is
instant and serving never needs what training needs.
"""

import importlib
import io
import sys
from typing import NamedTuple

from taxon import __version__, extras
from taxon.picture_files import is_utf8, printable


class Command(NamedTuple):
    """Where a command lives and which extra brings what it imports."""

    target: str
    """`module:function` below `taxon`; the function takes the words behind the command and returns the exit code."""
    extra: str
    summary: str


COMMANDS = {
    "data": Command(
        "training.commands.data:main", "training", "check, split and merge labelled pictures; say what to label next"
    ),
    "advise": Command("training.commands.advise:main", "training", "say which backbone suits labelled pictures"),
    "search": Command(
        "training.commands.search:main", "training,search", "look for better settings of a training, and prove them"
    ),
    "train": Command("training.commands.train:main", "training", "fine-tune a classifier on labelled pictures"),
    "export": Command("training.commands.export:main", "training", "turn a run into a proven bundle and publish it"),
    "fuse": Command(
        "training.commands.fuse:main",
        "training",
        "make one classifier of several runs, or of what participants send",
    ),
    "import-onnx": Command(
        "training.commands.import_onnx:main", "training", "make a proven bundle of an ONNX classifier"
    ),
    "round": Command(
        "training.commands.round:main", "training", "turn what people say into the next version, if that is better"
    ),
    "models": Command(
        "training.commands.catalog:main", "training", "list every version of every model, with its lineage"
    ),
    "promote": Command("training.commands.promote:main", "training", "make a version the default, if it is not worse"),
    "rollback": Command(
        "training.commands.promote:rollback_main", "training", "make the previous default the default again"
    ),
    "label": Command(
        "training.commands.catalog:label_main", "training", "point a label such as candidate at a version"
    ),
    "traffic": Command("traffic:main", "", "let a version answer a share of the calls, or only be compared"),
    "sign": Command("sign:main", "signing", "sign a version, for services that require it"),
    "push": Command("exchange:push_main", "", "send a version to an object store or a shared folder"),
    "pull": Command("exchange:pull_main", "", "fetch a version that was pushed, checked before servers see it"),
    "serve": Command("service.server:main", "cpu", "answer classification requests over gRPC"),
    "health": Command("service.api.health:main", "cpu", "ask a server whether it is serving; the exit code answers"),
    "device": Command("service.runtime.device_main:main", "cpu", "say whether GPUs work here; the exit code answers"),
    "keys": Command("service.access.keys_main:main", "cpu", "say who may call a server, and what"),
    "classify": Command("classify:main", "", "ask about pictures; with --out, millions of files into one table"),
    "bench": Command("bench.command:main", "", "measure how much a server answers, and how fast"),
    "tune": Command("tuning.command:main", "cpu", "find the settings that serve a model fastest on this machine"),
    "explain": Command("explain:main", "", "draw over pictures what speaks for their labels"),
    "feedback": Command(
        "feedback.commands:main", "", "say what pictures show; review, export and forget what was said"
    ),
    "console": Command("console.commands:main", "console", "show a server, models and runs in the browser"),
    "demo": Command("demo:main", "training,cpu", "train, export, serve and classify handwritten digits"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 done with failures, 2 not usable as called."""
    arguments = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a label that the terminal cannot show ends no command
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())  # noqa: T201 - the answer itself
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"taxon {__version__}")  # noqa: T201 - the answer itself
        return 0
    if odd := [word for word in arguments if not is_utf8(word)]:
        sys.stderr.write(f"taxon: {printable(odd[0])} is not UTF-8: rename it\n")  # it could not be written anywhere
        return 2
    name, *rest = arguments
    if name not in COMMANDS:
        sys.stderr.write(f"taxon: there is no command {name!r}\n\n{_usage()}\n")
        return 2
    command = COMMANDS[name]
    sys.argv[0] = f"taxon {name}"  # what the command's own --help calls itself
    try:
        module_name, _, function = command.target.partition(":")
        module = importlib.import_module(f"taxon.{module_name}")
    except ModuleNotFoundError as error:
        if error.name == "taxon.training":
            sys.stderr.write(f"taxon {name}: no training code is installed here: use the training image\n")
            return 2
        if error.name and error.name.partition(".")[0] == "taxon":
            raise  # ours is missing: a broken installation, not a missing extra
        sys.stderr.write(f"taxon {name}: {error}; install it with: {extras.install(command.extra)}\n")
        return 2
    return int(getattr(module, function)(rest))


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    return f"usage: taxon COMMAND [options]\n\n{rows}\n\ntaxon COMMAND --help says more; taxon --version says which."


if __name__ == "__main__":
    sys.exit(main())

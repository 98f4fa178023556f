"""The command `taxon`: a table of commands, each imported only when it is called, so that `--help` is
instant and serving never needs what training needs.
"""

import importlib
import sys
from typing import NamedTuple

from taxon import __version__


class Command(NamedTuple):
    """Where a command lives and which extra brings what it imports."""

    module: str
    extra: str
    summary: str


COMMANDS = {
    "train": Command("training.finetune", "training", "fine-tune a classifier on a folder of labelled pictures"),
    "export": Command("training.export", "training", "turn a run into a proven bundle and publish it"),
    "serve": Command("service.server", "cpu", "answer classification requests over gRPC"),
    "health": Command("service.health", "cpu", "ask a server whether it is serving; the exit code answers"),
    "classify": Command("taxon.classify", "", "send pictures to a server and print the answers"),
    "demo": Command("taxon.demo", "training,cpu", "train, export, serve and classify handwritten digits"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 done with failures, 2 not usable as called."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage())  # noqa: T201 - the answer itself
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"taxon {__version__}")  # noqa: T201 - the answer itself
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        sys.stderr.write(f"taxon: there is no command {name!r}\n\n{_usage()}\n")
        return 2
    command = COMMANDS[name]
    sys.argv[0] = f"taxon {name}"  # what the command's own --help calls itself
    try:
        module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        if error.name and error.name.partition(".")[0] in ("taxon", "service", "training"):
            raise  # ours is missing: a broken installation, not a missing extra
        sys.stderr.write(f"taxon {name}: {error}; install it with: pip install 'taxon[{command.extra}]'\n")
        return 2
    return int(module.main(rest))


def _usage() -> str:
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    return f"usage: taxon COMMAND [options]\n\n{rows}\n\ntaxon COMMAND --help says more; taxon --version says which."


if __name__ == "__main__":
    sys.exit(main())

"""The command line: ``kernax demo | fit | predict | kernels``."""

import argparse
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

BAD_INPUT, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 on success, 2 with one line on stderr for bad input, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    import jax

    # For this process only: the library itself never changes it.
    jax.config.update("jax_enable_x64", True)
    from .._errors import KernaxWarning
    from . import _commands, _demo

    command = {
        "demo": _demo.run_demo,
        "fit": _commands.run_fit,
        "predict": _commands.run_predict,
        "kernels": _commands.run_kernels,
    }[options.command]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", KernaxWarning)
            warnings.showwarning = _commands.warn_in_one_line
            return command(options)
    except KeyboardInterrupt:
        print("kernax: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        raise  # nobody reads any more: no error of ours
    except Exception as error:  # whatever it is, a user gets one line and exit code 2
        if options.debug:
            traceback.print_exc()
        print(f"kernax: error: {_one_line(_message(error))}", file=sys.stderr)
        return BAD_INPUT


def _message(error: Exception) -> str:
    from .._errors import KernaxError

    if isinstance(error, KernaxError):
        return str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    return f"unexpected {type(error).__name__}: {error} (--debug shows where)"


def _one_line(text: str) -> str:
    """What a file or an argument put into a message is not obeyed by the terminal."""
    shown = (c if c.isprintable() else repr(c)[1:-1] for c in " ".join(text.split()))
    return "".join(shown)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage."""
        self.exit(
            BAD_INPUT, f"{self.prog}: error: {_one_line(message)}. Fix: see `{self.prog} --help`.\n"
        )


def _whole(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = low - 1
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return value

    return convert


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    writing = _Parser(add_help=False)
    writing.add_argument("--force", action="store_true", help="overwrite existing files")
    writing.add_argument("--quiet", action="store_true", help="no progress line")
    reading = _Parser(add_help=False)
    reading.add_argument(
        "--bad-rows",
        choices=("stop", "drop"),
        default="stop",
        help="what to do with cells that are not numbers",
    )
    parser = _Parser(prog="kernax", description="Gaussian processes for tables of measurements.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo", parents=[common, writing], help="forecast CO2 at Mauna Loa, with a picture"
    )
    demo.add_argument("--out", default="kernax-demo", help="folder for forecast.csv, forecast.png")

    fit = commands.add_parser(
        "fit", parents=[common, writing, reading], help="fit a model to a CSV file"
    )
    fit.add_argument("data", help="CSV file with a header")
    fit.add_argument(
        "--input", action="append", required=True, help="input column; may be repeated"
    )
    fit.add_argument("--output", required=True, help="output column")
    fit.add_argument("--kernel", required=True, help="for instance '2**2*SE(1.5) + Linear()'")
    fit.add_argument(
        "--prior", action="append", default=[], help="for instance 'noise_variance=LogNormal(0, 1)'"
    )
    fit.add_argument("--mean", choices=("zero", "constant", "linear"), default="constant")
    fit.add_argument("--noise", type=float, help="noise variance to start from")
    fit.add_argument("--fix", action="append", default=[], help="hyperparameter that stays")
    fit.add_argument("--restarts", type=_whole(0, 10**6), default=0, help="further random starts")
    fit.add_argument("--seed", type=_whole(0, 2**32 - 1), default=0, help="of the random starts")
    fit.add_argument("--max-steps", type=_whole(0, 10**9), default=500)
    fit.add_argument("--save", help="file for the model, JSON")

    predict = commands.add_parser(
        "predict", parents=[common, writing, reading], help="forecast with a saved model"
    )
    predict.add_argument("model", help="file written by kernax fit --save")
    predict.add_argument("data", help="CSV file with the input columns")
    predict.add_argument("--out", help="CSV file for the forecast; standard output without it")
    predict.add_argument("--plot", help="PNG file for a picture")

    commands.add_parser("kernels", parents=[common], help="the catalogue of kernels")
    return parser


def run() -> None:
    """The entry point of the installed command."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:  # as in `kernax kernels | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)

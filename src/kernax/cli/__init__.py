"""The command line: ``kernax demo | fit | predict | kernels``."""

import argparse
import sys
from collections.abc import Sequence

BAD_INPUT, INTERRUPTED = 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 on success, 2 with one line on stderr for bad input, 130 after Ctrl-C."""
    options = _parser().parse_args(arguments)
    import jax

    # For this process only: the library itself never changes it.
    jax.config.update("jax_enable_x64", True)
    from .._errors import KernaxError
    from . import _commands, _demo

    _commands.install_warnings()
    run = {
        "demo": _demo.run_demo,
        "fit": _commands.run_fit,
        "predict": _commands.run_predict,
        "kernels": _commands.run_kernels,
    }[options.command]
    try:
        return run(options)
    except KeyboardInterrupt:
        print("kernax: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (KernaxError, OSError) as error:
        if options.debug:
            raise
        text = " ".join(str(error).split())
        print(f"kernax: error: {text}", file=sys.stderr)
        return BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    writing = argparse.ArgumentParser(add_help=False)
    writing.add_argument("--force", action="store_true", help="overwrite existing files")
    writing.add_argument("--quiet", action="store_true", help="no progress line")
    reading = argparse.ArgumentParser(add_help=False)
    reading.add_argument(
        "--bad-rows",
        choices=("stop", "drop"),
        default="stop",
        help="what to do with cells that are not numbers",
    )
    parser = argparse.ArgumentParser(
        prog="kernax", description="Gaussian processes for tables of measurements."
    )
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
    fit.add_argument("--restarts", type=int, default=0, help="further random starts")
    fit.add_argument("--seed", type=int, default=0, help="of the random starts")
    fit.add_argument("--max-steps", type=int, default=500)
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
    sys.exit(main())

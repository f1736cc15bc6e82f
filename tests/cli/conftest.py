"""Running the command line in this process."""

import pytest

from kernax.cli import main


@pytest.fixture
def run(capsys):
    """The exit code, standard output and standard error of a command."""

    def run(*arguments):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def contents():
    """What the files of a folder hold."""
    return lambda folder: {
        path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()
    }

"The command line, called in this process."

from typer.testing import CliRunner

from speciarl.cli.app import app


def call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="speciarl")


def ok(*arguments) -> str:
    "What a command prints that ends well."
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments) -> str:
    "The one line with which a command refuses, without its `error: `; the exit code is 2 and nothing else is printed."
    result = call(*arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
    return result.stderr.removeprefix("error: ").rstrip("\n")

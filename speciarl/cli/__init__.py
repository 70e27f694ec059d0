"The door: one command, `speciarl`, in front of the library."

from . import app, asking, doctor, features, judging, papering, scoring, training, trees  # noqa: F401 - each brings its commands

app.offer(app.app, app.OFFERED)


def main() -> None:
    "The console script."
    app.app(prog_name="speciarl")

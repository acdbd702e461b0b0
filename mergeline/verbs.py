"""Every verb, in the order in which `mergeline --help` lists them."""

import typer

from mergeline import jobs, judging, labels, machine, promoting, reconciling, retraining, watching

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Merge a pull request, and the model on the line changes.",
)
for group in (machine, jobs, labels, judging, promoting, retraining, reconciling, watching):
    app.add_typer(group.app)

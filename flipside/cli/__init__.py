"""The commands beside the pipeline: `flipside --help` or `python -m flipside --help`.

One file per command. Whatever takes long to import is imported when a command runs, so that help is quick.
"""

import typer

from flipside.cli import (
    ablation_tables,
    ablations,
    apply,
    check,
    compare,
    demo,
    experiments,
    export,
    generator_table,
    init,
    predict,
    profile,
    ranking,
    repeat,
    repro,
    review,
    sweep,
    tace_tables,
)
from flipside.core.params import stage_main

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Commands beside the pipeline, which `dvc repro` runs. Run them in the project's folder.")
for command in (demo.demo, init.init, check.check, repro.repro, ranking.ranking, profile.profile, predict.predict,
                export.export, apply.apply, compare.compare, sweep.sweep, ablations.ablations,
                ablation_tables.ablation_tables, repeat.repeat, generator_table.generator_table,
                tace_tables.tace_tables, review.review):
    app.command()(command)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(experiments.experiments)


def main() -> None:
    """Run one command; an error that the user can correct is one line and exit status 1."""
    stage_main(app)

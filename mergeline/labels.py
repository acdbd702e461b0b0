"""Labels that grow: those of people come in, and what they shall label next goes out."""

from pathlib import Path
from typing import Annotated

import typer

from mergeline.options import PROJECT, STATE, Json, LastData, ProjectFile, StateFolder, stage_of, version_of
from mergeline.output import say, say_json

app = typer.Typer()
label = typer.Typer(no_args_is_help=True, help="Labels that grow: take them in, and hand out what to label next.")
app.add_typer(label, name="label")


@label.command(name="import")
def import_labels(
    file: Annotated[Path, typer.Argument(help="Label Studio's JSON or JSON-MIN export, or feedback as JSON lines.")],
    confirm: Annotated[bool, typer.Option("--confirm", help="Take feedback; without, it is only listed.")] = False,
    by: Annotated[str | None, typer.Option("--by", help="Who confirms feedback, or labelled if FILE says not.")] = None,
    data: LastData = None,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    as_json: Json = False,
) -> None:
    """Keep the labels of FILE: the next `dataset` stage uses them over the source's own and `data.labels`."""
    from ray_jobs import labelling

    report = labelling.import_labels(stage_of(project, state), file, data=data, confirm=confirm, by=by)
    if as_json:
        say_json(report.model_dump(mode="json"))
    else:
        say(report.text())


@label.command(name="export")
def export_labels(
    file: Annotated[Path, typer.Argument(help="Label Studio tasks to write.")],
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Most photographs; all if not given.")] = None,
    labelled: Annotated[
        bool, typer.Option("--all/--unlabelled", help="Also those that have a label, or only those without.")
    ] = False,
    images: Annotated[Path | None, typer.Option("--images", help="A folder of further photographs.")] = None,
    windows: Annotated[
        Path | None,
        typer.Option("--windows", help="Also what an environment's windows kept; its `args.windows`."),
    ] = None,
    version: Annotated[str | None, typer.Option("--version", help="Who judges; the newest if not given.")] = None,
    root: Annotated[Path, typer.Option("--root", help="Label Studio's LOCAL_FILES_DOCUMENT_ROOT.")] = Path("/"),
    data: LastData = None,
    project: ProjectFile = PROJECT,
    state: StateFolder = STATE,
    as_json: Json = False,
) -> None:
    """Write the photographs to label next for Label Studio, those first that the model is least sure of."""
    stage = stage_of(project, state)
    chosen = version_of(stage.state, stage.project.name, version)
    from ray_jobs import label_tasks

    exported = label_tasks.export_tasks(
        stage, chosen, file, data=data, images=images, windows=windows, labelled=labelled, limit=limit, root=root
    )
    if as_json:
        say_json(exported.model_dump(mode="json"))
    else:
        say(exported.text())

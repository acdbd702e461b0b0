"""What the monitor saw of the line in a day, on a page: a job for each night.

python -m ray_jobs.drift --project project.yaml --state .mergeline --hours 24
"""

import argparse
from datetime import timedelta
from pathlib import Path

from gitops.errors import BundleError, ContractError
from gitops.state import write_atomically
from gitops.status import now
from ray_jobs import drift_page
from ray_jobs.drift_summary import Reference, watched
from ray_jobs.stage import Stage, arguments, open_stage, recorded, run_main


@recorded("drift")
def run(stage: Stage, windows: Path, hours: float) -> Path | None:
    """Sum up the project's windows that ended lately, in words and on a page.

    Args:
        stage: project and state.
        windows: `args.windows` of an environment: one folder in it an application.
        hours: that have passed since the first of them ended, at most.

    Returns:
        The page; None: no window ended.

    Raises:
        DataError: there is no such folder, or a window in it cannot be read.
    """
    until = now()
    found = watched(stage.project.name, windows, until - timedelta(hours=hours))
    if not found:
        print(f"no window of {stage.project.name} ended in the last {hours:g} h in {windows}")
        return None
    references: dict[str, Reference | str] = {}
    for one in found:
        try:
            references[one.model.sha256] = Reference.of(one.model, stage.state.bundles)
        except (BundleError, ContractError) as error:  # of a version that is long gone: the windows still say it all
            references[one.model.sha256] = str(error)
            print(f"mind: the page has no reference of {one.title}: {error}")
        print(one.text)
    page = stage.state.drift / stage.project.name / f"{until:%Y-%m-%d}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, drift_page.render(stage.project, found, references, until, hours))
    print(f"wrote {page}")
    return page


def main() -> None:
    """Report as a program."""
    parser = arguments("Sum up the windows of the served line that ended lately: what drifted in them, on a page.")
    place = "`args.windows` of the environment (the state folder's, of the project's first environment)"
    parser.add_argument("--windows", type=Path, metavar="FOLDER", help=place)
    parser.add_argument("--hours", type=_positive, default=24.0, help="windows that ended so lately (%(default)g)")
    options = parser.parse_args()
    stage = open_stage(options)
    run(stage, options.windows or stage.state.windows / stage.project.environments[0], options.hours)


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be more than 0, not {text}")
    return value


if __name__ == "__main__":
    run_main(main)

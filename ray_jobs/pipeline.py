"""The line's stages in order: `python -m ray_jobs.pipeline`; what is done already is skipped by the stage itself."""

from collections.abc import Callable

from gitops.contracts.serving import ModelVersion
from ray_jobs import cross_validate, dataset, etl, evaluate, export, quality, register, train
from ray_jobs.stage import Stage, arguments, as_count, open_stage, run_main


def run(stage: Stage, *, data: str | None = None, workers: int | None = None, use_gpu: bool = False) -> ModelVersion:
    """Run every stage, from photographs to a registered version.

    Args:
        stage: project and state.
        data: `rendered`, `kaggle` or a folder instead of the project's data source.
        workers: Ray Train workers instead of the project's number.
        use_gpu: train on GPUs.

    Raises:
        MergelineError: a stage cannot go on; run again after mending, and it goes on from there.
    """
    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("dataset", lambda: dataset.extract(stage, data)),
        ("etl", lambda: etl.run(stage)),
        ("quality", lambda: quality.run(stage)),
        ("train", lambda: train.train(stage, workers=workers, use_gpu=use_gpu)),
        ("cross_validate", lambda: cross_validate.cross_validate(stage, use_gpu=use_gpu)),
        ("export", lambda: export.export(stage)),
        ("evaluate", lambda: evaluate.evaluate(stage)),
    )
    for number, (name, step) in enumerate(steps, start=1):
        print(f"[{number}/{len(steps) + 1}] {name}", flush=True)
        step()
    print(f"[{len(steps) + 1}/{len(steps) + 1}] register", flush=True)
    return register.register(stage)


def main() -> None:
    """Run the pipeline as a program."""
    parser = arguments("Run all stages of the line in order.")
    parser.add_argument("--data", help="rendered, kaggle, or a folder, instead of the project's source")
    parser.add_argument("--workers", type=as_count, help="Ray Train workers, instead of the project's number")
    parser.add_argument("--use-gpu", action="store_true", help="train on GPUs")
    options = parser.parse_args()
    run(open_stage(options), data=options.data, workers=options.workers, use_gpu=options.use_gpu)


if __name__ == "__main__":
    run_main(main)

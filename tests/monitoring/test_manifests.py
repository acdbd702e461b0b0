"""What a cluster gets is what one machine has: the committed files are those that are made of rules and dashboards."""

from monitoring.manifests import FOLDER, manifests


def test_the_committed_files_are_those_that_are_made() -> None:
    made = dict(manifests())
    committed = {
        str(file.relative_to(FOLDER)): file.read_text()
        for file in FOLDER.rglob("*")
        if file.is_file() and file.name != "kustomization.yaml"
    }
    assert committed == made, "run `python -m monitoring.manifests`"


def test_the_kustomization_has_every_file() -> None:
    text = (FOLDER / "kustomization.yaml").read_text()
    assert all(name in text for name, _ in manifests())

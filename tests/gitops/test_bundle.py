"""A bundle is what its digest says, or it is refused with the name of the file that isn't."""

import json
import shutil
from pathlib import Path

import pytest

from gitops import bundle
from gitops.contracts.model import BundleFile
from gitops.errors import BundleError
from tests.gitops.deployments import make_bundle, unsealed
from tests.rights import as_nobody, open_folder


@pytest.fixture
def sealed(tmp_path: Path) -> tuple[Path, str]:
    folder = tmp_path / "bundle"
    return folder, make_bundle(folder)


def test_the_digest_depends_on_contents_only(tmp_path: Path) -> None:
    assert make_bundle(tmp_path / "one") == make_bundle(tmp_path / "two") == bundle.digest(tmp_path / "one")
    assert make_bundle(tmp_path / "three", "other") != bundle.digest(tmp_path / "one")


def test_a_file_that_cannot_be_read_is_told() -> None:
    with open_folder() as place:
        digest = make_bundle(folder := place / "bundle")
        (folder / "model.bin").chmod(0)
        with as_nobody(), pytest.raises(BundleError, match=r"model\.bin cannot be read \(Permission denied\)"):
            bundle.verify(folder, digest)


def test_every_file_but_the_manifest_is_listed(sealed: tuple[Path, str]) -> None:
    manifest = bundle.verify(*sealed).manifest
    assert [file.path for file in manifest.files] == [
        "model.bin",
        "probe.png",
        "reference.json",
        "saved_model/saved_model.pb",
    ]
    assert manifest.files[1].bytes == len(b"picture")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("model.bin", "weightz ", "model.bin was changed or cut short"),
        ("model.bin", "", "model.bin was changed or cut short"),
        ("model.bin", None, "model.bin is missing"),
        ("saved_model/saved_model.pb", None, "saved_model/saved_model.pb is missing"),
        ("extra", "x", "extra is not in its manifest"),
        ("manifest.json", None, "cannot read manifest.json"),
        ("manifest.json", "{}", "one of the two is wrong"),
    ],
)
def test_a_bundle_that_is_not_whole_names_the_file(
    sealed: tuple[Path, str], name: str, text: str | None, reason: str
) -> None:
    folder, digest = sealed
    (folder / name).unlink() if text is None else (folder / name).write_text(text)
    with pytest.raises(BundleError, match=reason):
        bundle.verify(folder, digest)


def test_a_folder_is_opened_by_what_its_own_manifest_says(sealed: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = sealed
    assert bundle.open_folder(folder) == bundle.verify(folder, digest)
    (folder / "model.bin").write_text("other")
    with pytest.raises(BundleError, match=r"model\.bin was changed"):
        bundle.open_folder(folder)
    with pytest.raises(BundleError, match="nowhere"):
        bundle.open_folder(tmp_path / "nowhere")


def test_one_file_is_read_alone_if_it_is_the_one_of_the_manifest(sealed: tuple[Path, str]) -> None:
    folder, digest = sealed
    manifest = bundle.read_manifest(folder.as_uri(), digest)
    (folder / "model.bin").unlink()  # nobody asks for it
    assert bundle.read_file(folder.as_uri(), manifest, "probe.png") == b"picture"
    (folder / "probe.png").write_text("another")
    for path in ("probe.png", "manifest.json"):
        with pytest.raises(BundleError, match=f"{path} is not the file that its manifest lists"):
            bundle.read_file(folder.as_uri(), manifest, path)
    with pytest.raises(BundleError, match=r"cannot read model\.bin"):
        bundle.read_file(folder.as_uri(), manifest, "model.bin")


def test_a_link_is_no_file_of_a_bundle(sealed: tuple[Path, str]) -> None:
    folder, digest = sealed
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="link is a link or a special file"):
        bundle.verify(folder, digest)


def test_sealing_refuses_a_manifest_that_names_a_file_that_is_not_there(tmp_path: Path) -> None:
    make_bundle(tmp_path / "bundle")
    (tmp_path / "bundle" / "probe.png").unlink()
    with pytest.raises(BundleError, match=r"names 'probe\.png', but lists no such file"):
        bundle.seal(tmp_path / "bundle", unsealed())
    shutil.rmtree(tmp_path / "bundle" / "saved_model")
    (tmp_path / "bundle" / "probe.png").write_text("picture")
    with pytest.raises(BundleError, match="no file of the SavedModel"):
        bundle.seal(tmp_path / "bundle", unsealed())


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "a/../../b"])
def test_a_manifest_cannot_lead_out_of_the_bundle(sealed: tuple[Path, str], path: str) -> None:
    folder, _ = sealed
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][0]["path"] = path
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="no path inside a bundle"):
        bundle.read_manifest(folder.as_uri(), bundle.digest(folder))


def test_a_manifest_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(BundleError, match="not a valid manifest"):
        bundle.read_manifest(tmp_path.as_uri(), bundle.digest(tmp_path))


def test_a_local_bundle_is_used_in_place(tmp_path: Path) -> None:
    folder = tmp_path / "with space & ümlaut"
    digest = make_bundle(folder)
    assert bundle.fetch(folder.as_uri(), digest, tmp_path / "cache") == bundle.open_folder(folder)
    assert bundle.read_manifest(folder.as_uri(), digest).name == "screw"
    assert not (tmp_path / "cache").exists()


def test_a_remote_bundle_is_copied_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = _a_store(tmp_path, monkeypatch)
    digest = make_bundle(stores / "bundle")
    fetched = bundle.fetch("s3://models/bundle", digest, tmp_path / "cache")
    assert fetched == bundle.open_folder(tmp_path / "cache" / digest)
    assert (fetched.folder.name, fetched.digest, fetched.manifest.name) == (digest, digest, "screw")
    shutil.rmtree(stores)  # the second time nothing is read from there
    assert bundle.fetch("s3://models/bundle", digest, tmp_path / "cache") == fetched


def test_a_broken_remote_bundle_leaves_nothing_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = _a_store(tmp_path, monkeypatch)
    digest = make_bundle(stores / "bundle")
    (stores / "bundle" / "model.bin").write_text("other")
    with pytest.raises(BundleError, match=r"model\.bin was changed"):
        bundle.fetch("s3://models/bundle", digest, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f".{digest}.lock"]
    with pytest.raises(BundleError, match="cannot read the bundle s3://models/absent"):
        bundle.read_manifest("s3://models/absent", digest)


def test_a_cached_bundle_that_was_damaged_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = _a_store(tmp_path, monkeypatch)
    digest = make_bundle(stores / "bundle")
    fetched = bundle.fetch("s3://models/bundle", digest, tmp_path / "cache")
    (fetched.folder / "model.bin").write_text("rot")
    assert bundle.fetch("s3://models/bundle", digest, tmp_path / "cache") == fetched
    assert bundle.open_folder(fetched.folder) == fetched


@pytest.mark.parametrize("change", ["write", "replace", "add", "remove"])
def test_what_was_verified_is_read_again_where_it_changed(
    sealed: tuple[Path, str], tmp_path: Path, change: str
) -> None:
    folder, digest = sealed
    bundles = bundle.Bundles(tmp_path / "cache")
    bundles.fetch(folder.as_uri(), digest)
    file = folder / "model.bin"
    if change == "write":
        file.write_text(file.read_text()[::-1])
    elif change == "replace":
        (tmp_path / "other").write_text(file.read_text()[::-1])
        shutil.copystat(file, tmp_path / "other")
        (tmp_path / "other").replace(file)
    elif change == "add":
        (folder / "saved_model" / "extra").write_text("x")
    else:
        file.unlink()
    for _ in range(2):
        with pytest.raises(BundleError):
            bundles.fetch(folder.as_uri(), digest)


def test_what_was_verified_and_is_as_it_was_is_not_read_again(
    sealed: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, digest = sealed
    bundles, read, list_files = bundle.Bundles(tmp_path / "cache"), [], bundle.list_files

    def listing(place: Path) -> tuple[BundleFile, ...]:
        read.append(place)
        return list_files(place)

    monkeypatch.setattr(bundle, "list_files", listing)
    assert bundles.fetch(folder.as_uri(), digest) is bundles.fetch(folder.as_uri(), digest)
    assert read == [folder]


@pytest.mark.parametrize(("uri", "reason"), [("/a/path", "is no URI"), ("nonsense://x/y", "cannot read the bundle")])
def test_a_uri_that_nobody_knows_is_refused(tmp_path: Path, uri: str, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        bundle.fetch(uri, "0" * 64, tmp_path)


def _a_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pyarrow's own local file system stands in for S3, which cannot be had here: s3://models/x is <store>/x."""
    from pyarrow import fs

    store = folder / "store"
    store.mkdir()

    def from_uri(uri: str) -> tuple[fs.FileSystem, str]:
        return fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem()), uri.replace("s3://models", "store")

    monkeypatch.setattr(fs, "FileSystem", type("FileSystem", (), {"from_uri": staticmethod(from_uri)}))
    return store

"""A model bundle: a folder whose `manifest.json` lists every other file; the manifest's SHA-256 is its digest."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from pydantic import ValidationError

from gitops.contracts.model import BundleFile, BundleManifest
from gitops.errors import BundleError
from gitops.state import folder_written_whole, locked, write_atomically

MANIFEST = "manifest.json"
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class VerifiedBundle:
    """A bundle in which every file was there, whole, and nothing was extra, when `verify` looked: it makes them."""

    folder: Path
    digest: str
    manifest: BundleManifest


def list_files(folder: Path) -> tuple[BundleFile, ...]:
    """Every file below `folder` but the manifest, with digest and size in bytes, sorted by path.

    Raises:
        BundleError: the folder cannot be read, or holds something that is neither a file nor a folder (a link, say).
    """
    files = []
    for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix()):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise BundleError(f"bundle {folder}: {name} is a link or a special file; a bundle holds plain files only")
        if path.is_file() and name != MANIFEST:
            try:
                files.append(BundleFile(path=name, sha256=_file_sha256(path), bytes=path.stat().st_size))
            except OSError as error:
                raise BundleError(f"bundle {folder}: {name} cannot be read ({error.strerror})") from error
    return tuple(files)


def seal(folder: Path, manifest: BundleManifest) -> str:
    """Write `manifest.json` with the files that lie in `folder` (whatever `manifest.files` says); return the digest."""
    sealed = manifest.model_copy(update={"files": list_files(folder)})
    _check_references(sealed, str(folder))
    write_atomically(folder / MANIFEST, sealed.to_json())
    return digest(folder)


def digest(folder: Path) -> str:
    """The bundle's digest: SHA-256 of the bytes of its manifest.

    Raises:
        BundleError: there is no manifest.
    """
    try:
        return _file_sha256(folder / MANIFEST)
    except OSError as error:
        raise BundleError(f"no bundle in {folder}: cannot read {MANIFEST} ({error.strerror})") from error


def open_folder(folder: Path) -> VerifiedBundle:
    """The bundle in a folder, verified against its own manifest: for one whose digest nobody has named.

    Raises:
        BundleError: there is none, or it says which file is missing, changed or extra.
    """
    return verify(folder, digest(folder))


def verify(folder: Path, sha256: str) -> VerifiedBundle:
    """The bundle of a digest, if every file of it is there, whole, and nothing is extra.

    Raises:
        BundleError: it says which file is missing, changed or extra.
    """
    manifest = _parse(_read(folder / MANIFEST), sha256, str(folder))
    listed = {file.path: file for file in manifest.files}
    present = {file.path: file for file in list_files(folder)}
    for name in sorted(listed.keys() | present.keys()):
        if name not in present:
            raise BundleError(f"bundle {folder}: {name} is missing; export or copy the bundle again")
        if name not in listed:
            raise BundleError(f"bundle {folder}: {name} is not in its manifest; remove it")
        if listed[name] != present[name]:
            raise BundleError(f"bundle {folder}: {name} was changed or cut short; export or copy the bundle again")
    return VerifiedBundle(folder, sha256, manifest)


def read_manifest(uri: str, sha256: str) -> BundleManifest:
    """The manifest of the bundle at `uri`, checked against its digest; no other file is read.

    Raises:
        BundleError: the manifest cannot be read, or is another one.
    """
    if (folder := local_folder(uri)) is not None:
        return _parse(_read(folder / MANIFEST), sha256, uri)
    return _parse(_open(uri)(MANIFEST), sha256, uri)


def read_file(uri: str, manifest: BundleManifest, path: str) -> bytes:
    """One file of a bundle, checked against its manifest; no other is read.

    Args:
        uri: of the bundle.
        manifest: of the same.
        path: the file's, as the manifest lists it.

    Raises:
        BundleError: it cannot be read, or is another one.
    """
    digests = [file.sha256 for file in manifest.files if file.path == path]
    folder = local_folder(uri)
    data = _read(folder / path) if folder is not None else _open(uri)(path)
    if hashlib.sha256(data).hexdigest() not in digests:
        raise BundleError(f"bundle {uri}: {path} is not the file that its manifest lists; copy the bundle again")
    return data


def fetch(uri: str, sha256: str, cache: Path) -> VerifiedBundle:
    """A bundle in a folder here: in place for file://, else copied to `cache/<sha256>`, whole or not at all.

    Raises:
        BundleError: the bundle is missing, incomplete or not what its digest says.
    """
    if (folder := local_folder(uri)) is not None:
        return verify(folder, sha256)
    target = cache / sha256
    with locked(cache / f".{sha256}.lock"):  # replicas start at once, and one copies for all
        try:
            return verify(target, sha256)
        except BundleError:  # not there yet, or damaged since
            shutil.rmtree(target, ignore_errors=True)
            return _copy(uri, sha256, target)


class Bundles:
    """Bundles as `fetch` has them; one that was verified is read again only where a file of it is another since.

    Args:
        cache: folder for copies of what lies in remote stores.
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._verified: dict[tuple[str, str], tuple[VerifiedBundle, object]] = {}

    def fetch(self, uri: str, sha256: str) -> VerifiedBundle:
        """A bundle in a folder here.

        Raises:
            BundleError: the bundle is missing, incomplete or not what its digest says.
        """
        if known := self._verified.get((uri, sha256)):
            verified, seen = known
            if seen == _seen(verified.folder):
                return verified
        verified = fetch(uri, sha256, self._cache)
        self._verified[uri, sha256] = verified, _seen(verified.folder)
        return verified


def _seen(folder: Path) -> object:
    """What differs where a file was written, replaced, added or removed: the kernel's notes on each of them."""
    notes = []
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):
            note = path.lstat()
            notes.append((str(path), note.st_ino, note.st_size, note.st_mtime_ns, note.st_ctime_ns))
    return notes


def local_folder(uri: str) -> Path | None:
    """The folder that a file:// URI names; None for another kind of URI.

    Raises:
        BundleError: `uri` has no scheme.
    """
    parts = urlsplit(uri)
    if not parts.scheme:
        raise BundleError(f"{uri!r} is no URI: write file:// and an absolute path, s3://… or gs://…")
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def _copy(uri: str, sha256: str, target: Path) -> VerifiedBundle:
    read = _open(uri)  # once: looking for credentials and a region can take the SDK of a store seconds
    data = read(MANIFEST)
    manifest = _parse(data, sha256, uri)
    with folder_written_whole(target) as folder:
        for file in manifest.files:
            path = folder / file.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(read(file.path))
        (folder / MANIFEST).write_bytes(data)
        verified = verify(folder, sha256)
    return replace(verified, folder=target)


def _open(uri: str) -> Callable[[str], bytes]:
    """What reads a file of the bundle, by its path in there.

    Raises:
        BundleError: the store cannot be opened, or, later, a file of it cannot be read.
    """
    from pyarrow import fs

    with _named(uri):
        filesystem, root = fs.FileSystem.from_uri(uri)

    def read(path: str) -> bytes:
        with _named(uri), filesystem.open_input_stream(f"{root.rstrip('/')}/{path}") as stream:
            data: bytes = stream.read()
        return data

    return read


@contextmanager
def _named(uri: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: pyarrow's ArrowInvalid, for a scheme that it doesn't know
        raise BundleError(f"cannot read the bundle {uri}: {error}") from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"no bundle in {path.parent}: cannot read {path.name} ({error.strerror})") from error


def _parse(data: bytes, sha256: str, source: str) -> BundleManifest:
    actual = hashlib.sha256(data).hexdigest()
    if actual != sha256:
        raise BundleError(f"bundle {source} has the digest {actual}, wanted was {sha256}; one of the two is wrong")
    try:
        manifest = BundleManifest.model_validate_json(data)
    except ValidationError as error:
        raise BundleError(f"bundle {source}: {MANIFEST} is not a valid manifest: {error}") from error
    _check_references(manifest, source)
    return manifest


def _check_references(manifest: BundleManifest, source: str) -> None:
    """Paths stay inside the bundle, and the files that the manifest names are listed."""
    paths = [file.path for file in manifest.files]
    for path in paths:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or path == MANIFEST:
            raise BundleError(f"bundle {source}: its manifest lists {path!r}, which is no path inside a bundle")
    for name in (manifest.engine_file, manifest.reference, manifest.probe.path):
        if name not in paths:
            raise BundleError(f"bundle {source}: its manifest names {name!r}, but lists no such file")
    if not any(path.startswith(manifest.saved_model.rstrip("/") + "/") for path in paths):
        raise BundleError(f"bundle {source}: there is no file of the SavedModel {manifest.saved_model!r}")


def _file_sha256(path: Path) -> str:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            sha.update(block)
    return sha.hexdigest()

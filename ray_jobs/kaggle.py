"""Downloads a data set from Kaggle, once, and unpacks it."""

import contextlib
import hashlib
import io
import re
import sys
import zipfile
from pathlib import Path
from typing import Any

from gitops.errors import DataError
from gitops.state import folder_written_whole


def fetch_kaggle(dataset: str, downloads: Path) -> Path:
    """Download and unpack a Kaggle data set, going on where a broken-off download stopped.

    The unpacked folder is named after the archive's SHA-256 and kept: Kaggle is not asked again while it is there.

    Args:
        dataset: owner/name.
        downloads: folder for downloads; each data set has its own in it.

    Raises:
        DataError: no credentials, no such data set, no network, or a damaged archive.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset):
        raise DataError(f"`data.kaggle` must be owner/dataset, not {dataset!r}")
    base = downloads / dataset.replace("/", "--")
    unpacked = sorted(path for path in base.glob("*") if re.fullmatch("[0-9a-f]{64}", path.name))
    if unpacked:
        print(f"nothing to download: {dataset} is in {unpacked[0]}; remove that folder to fetch it again")
        return unpacked[0]
    archive = base / f"{dataset.split('/')[1]}.zip"
    print(f"downloading {dataset} from Kaggle", flush=True)
    _download(dataset, base)
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _unpack(archive, base / digest)
    archive.unlink()
    print(f"unpacked {dataset}, archive sha256 {digest}")
    return base / digest


def _download(dataset: str, base: Path) -> None:
    from requests import RequestException

    base.mkdir(parents=True, exist_ok=True)
    try:
        # The client prints pages of advice where there are no credentials; ours is shorter.
        with contextlib.redirect_stdout(io.StringIO()):
            from kaggle.api.kaggle_api_extended import KaggleApi

            client: Any = KaggleApi()
            client.authenticate()
        # It resumes a broken-off download where ETag and length are still the same.
        client.dataset_download_files(dataset, path=str(base), quiet=not sys.stderr.isatty(), unzip=False)
    except SystemExit:
        raise DataError(
            "Kaggle finds no valid credentials: set KAGGLE_API_TOKEN (from https://www.kaggle.com/settings), or "
            "KAGGLE_USERNAME and KAGGLE_KEY; or use `--data rendered` or a folder, which need none"
        ) from None
    except (RequestException, OSError, ValueError) as error:
        raise DataError(
            f"cannot download {dataset} from Kaggle: {error}; what has come is kept in {base}: run again to go on"
        ) from error


def _unpack(archive: Path, target: Path) -> None:
    try:
        with folder_written_whole(target) as folder, zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)  # checks every file's CRC-32
    except zipfile.BadZipFile as error:
        archive.unlink()
        raise DataError(f"{archive} is damaged ({error}) and was removed: run again to download it anew") from error

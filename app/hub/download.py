"""Downloads into the hub's cache: whole, checked by their sums, and going on where one before broke off.

A blob gets its name only when its checksum was found right, and a snapshot gets its weights last of all files, so that
what an interrupted download leaves is never taken for a model. huggingface_hub says what a repository holds; its own
downloads begin anew each time and check no sum, so the bytes are fetched here, over plain HTTP. It is imported in
functions only, since the HTTP process reads names from this package too.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from app.errors import DISK_FULL, BackendUnavailable, StorageFull, UnknownModel, WhisperdError
from app.hub.cache import CHECKSUM, PARTIAL, locked, matches, repository_folder, size_of
from app.model_names import PULL_PATTERNS, Source

_REVISION = re.compile(r"[0-9a-f]{40}")
#: Seconds that the hub may take to say what a repository holds.
_LISTING_TIMEOUT_S = 20
#: Connections that bring not one byte more before a download is given up, and seconds between them.
_TRIES, _BETWEEN_TRIES_S = 4, 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """``file`` is being fetched or checked; ``done`` of the model's ``total`` bytes are here."""

    file: str
    done: int
    total: int


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class File:
    """A file of a repository: its size in bytes, its checksum as the hub gives it."""

    name: str
    size: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a model needs of its repository, the largest file (weights) last."""

    repo: str
    revision: str
    files: tuple[File, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def listing_of(source: Source) -> Listing:
    """Ask the hub what to fetch. Raises ``UnknownModel``, ``BackendUnavailable`` (no network, or not allowed)."""
    from huggingface_hub import HfApi

    with _sentences(source.repo):
        info = HfApi().model_info(source.repo, revision="main", files_metadata=True, timeout=_LISTING_TIMEOUT_S)
        revision, siblings = str(info.sha), info.siblings or []
        wanted = [each for each in siblings if _is_wanted(each.rfilename, source)]
        files = [_file(source.repo, revision, each) for each in wanted]
    if not _REVISION.fullmatch(revision) or not all(CHECKSUM.fullmatch(file.checksum) for file in files):
        raise BackendUnavailable(f"The hub gives no checksums for {source.repo}, so it was not downloaded.")
    if source.file and not files:
        raise UnknownModel(f"The repository {source.repo} has no file {source.file}.")
    return Listing(source.repo, revision, tuple(sorted(files, key=lambda file: file.size)))


def download(listing: Listing, cache_dir: Path, report: Report) -> Path:
    """Fetch what is missing or damaged, and return the snapshot's folder. Waits for another download of the repository.

    A download that broke off goes on where it stopped. Raises ``BackendUnavailable`` (broke off, wrong checksum) and
    ``StorageFull``; no new snapshot is usable then.
    """
    folder = repository_folder(cache_dir, listing.repo)
    with _sentences(listing.repo), locked(cache_dir, listing.repo, wait=True):
        (folder / "blobs").mkdir(parents=True, exist_ok=True)
        missing = {file for file in listing.files if not _keep(folder, listing.revision, file)}
        begun = sum(size_of(_partial(folder / "blobs", file)) for file in missing)
        _check_room(listing.repo, sum(file.size for file in missing) - begun, cache_dir)
        done = 0
        for file in listing.files:
            begin = done

            def here(size: int, file: File = file, begin: int = begin) -> None:
                report(Progress(file.name, begin + size, listing.size))

            here(0)
            if file in missing:
                _fetch(listing, file, folder / "blobs", here)
            done += file.size
            here(file.size)
        snapshot = folder / "snapshots" / listing.revision
        snapshot.mkdir(parents=True, exist_ok=True)
        for file in listing.files:
            _link(folder / "blobs" / file.checksum, snapshot / file.name)
        _write_ref(folder / "refs" / "main", listing.revision)
        return snapshot


def _is_wanted(name: str, source: Source) -> bool:
    # A name with a slash would lead out of the snapshot, and no model needs one.
    patterns = [source.file] if source.file else PULL_PATTERNS
    return "/" not in name and any(fnmatchcase(name, pattern) for pattern in patterns)


def _file(repo: str, revision: str, sibling: Any) -> File:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    if sibling.lfs is not None:
        return File(sibling.rfilename, int(sibling.lfs.size), str(sibling.lfs.sha256))
    if sibling.blob_id is not None and sibling.size is not None:
        return File(sibling.rfilename, int(sibling.size), str(sibling.blob_id))
    # Some mirrors say it of each file only.
    data = get_hf_file_metadata(hf_hub_url(repo, sibling.rfilename, revision=revision), timeout=_LISTING_TIMEOUT_S)
    return File(sibling.rfilename, int(data.size or 0), str(data.etag))


def _keep(folder: Path, revision: str, file: File) -> bool:
    """Whether the whole file is here already; what is damaged is removed."""
    blob, link = folder / "blobs" / file.checksum, folder / "snapshots" / revision / file.name
    found = next((path for path in (blob, link) if path.is_file()), None)
    if found is not None and not matches(found, file.checksum):
        found.unlink()
        return False
    return found is not None


def _partial(blobs: Path, file: File) -> Path:
    """Where a file is while it is not whole."""
    return blobs / f"{file.checksum}.{file.name}{PARTIAL}"


def _fetch(listing: Listing, file: File, blobs: Path, here: Callable[[int], None]) -> None:
    partial, blob = _partial(blobs, file), blobs / file.checksum
    for _ in range(2):
        _receive(listing, file, partial, here)
        if matches(partial, file.checksum):
            with partial.open("rb") as handle:
                os.fsync(handle.fileno())
            partial.replace(blob)
            return
        partial.unlink()
    raise BackendUnavailable(
        f"The file {file.name} of {listing.repo} came twice with a wrong checksum, so nothing of it was kept. "
        "Pull it again later, or from another mirror (HF_ENDPOINT)."
    )


def _receive(listing: Listing, file: File, partial: Path, here: Callable[[int], None]) -> None:
    """Have ``file.size`` bytes in ``partial``, going on behind those that are there."""
    from huggingface_hub import constants, get_session, hf_hub_url
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

    url = hf_hub_url(listing.repo, file.name, revision=listing.revision)
    if size_of(partial) > file.size:
        partial.unlink()
    best, tries = size_of(partial), _TRIES
    partial.touch()
    while (begin := size_of(partial)) < file.size:
        failure: Exception | None = None
        behind = {"Range": f"bytes={begin}-"} if begin else {}
        headers = build_hf_headers() | {"Accept-Encoding": "identity"} | behind
        try:
            with get_session().stream("GET", url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT) as answer:
                hf_raise_for_status(answer)
                with partial.open("ab" if answer.status_code == 206 else "wb") as draft:
                    for chunk in answer.iter_bytes():
                        draft.write(chunk)
                        here(min(draft.tell(), file.size))
        except OSError:  # the disk's word, or the hub's answer: the line did not break
            raise
        except Exception as error:  # noqa: BLE001 - huggingface_hub's HTTP library changes with its version
            failure = error
        best, tries = (size_of(partial), _TRIES) if size_of(partial) > best else (best, tries - 1)
        if not tries:
            raise failure or BackendUnavailable(f"The hub ends {file.name} of {listing.repo} too early.")
        if failure is not None:
            time.sleep(_BETWEEN_TRIES_S)


def _link(blob: Path, link: Path) -> None:
    if not blob.is_file():  # a file system without links holds the file itself in its place
        return
    draft = link.with_name(f".{link.name}.link")
    draft.unlink(missing_ok=True)
    try:
        draft.symlink_to(Path("..", "..", "blobs", blob.name))
    except OSError:
        blob.replace(link)
    else:
        draft.replace(link)


def _write_ref(ref: Path, revision: str) -> None:
    ref.parent.mkdir(parents=True, exist_ok=True)
    draft = ref.with_name(f".{ref.name}.new")
    draft.write_text(revision, "utf-8")
    draft.replace(ref)


def _check_room(repo: str, wanted: int, cache_dir: Path) -> None:
    free = shutil.disk_usage(cache_dir).free
    if free < wanted:
        raise StorageFull(
            f"The disk is too full: {repo} takes {wanted / 1e6:,.0f} MB more and {free / 1e6:,.0f} MB are free in "
            f"{cache_dir}. Make room and pull it again."
        )


@contextlib.contextmanager
def _sentences(repo: str) -> Iterator[None]:
    try:
        yield
    except WhisperdError:
        raise
    except Exception as error:  # noqa: BLE001 - the hub's libraries raise many things, and each must become a sentence
        raise _as_sentence(repo, error) from None


def _as_sentence(repo: str, error: Exception) -> WhisperdError:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return UnknownModel(f"The repository {repo} asks for consent: open its page, then log in with `hf auth login`.")
    if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError | errors.HFValidationError):
        return UnknownModel(f"The hub has no repository {repo}, or it is private and you are not logged in.")
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return StorageFull(f"The disk is full: {repo} was not downloaded. Make room and pull it again.")
    if constants.HF_HUB_OFFLINE:
        return BackendUnavailable(f"HF_HUB_OFFLINE forbids the network, and {repo} is not on this machine.")
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        return BackendUnavailable(
            f"{constants.ENDPOINT} answered {status}, so {repo} was not downloaded; try it later."
        )
    if isinstance(error, PermissionError):
        return BackendUnavailable(f"{repo} could not be written to {error.filename}: permission denied.")
    if type(error).__name__ in ("ConnectError", "ConnectTimeout"):
        return BackendUnavailable(f"{constants.ENDPOINT} cannot be reached, so {repo} was not downloaded.")
    return BackendUnavailable(
        f"The download of {repo} broke off ({type(error).__name__}); pull it again, it goes on where it stopped."
    )

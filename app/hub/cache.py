"""The hub's cache on this machine: where things lie in it, whether they are whole, and how they are removed.

Other programs share it: ``models--owner--name/`` holds ``blobs/<checksum>``, ``snapshots/<revision>/<file>`` (links to
blobs) and ``refs/main`` (the revision that is current). ``app.hub.download`` keeps what it has of a file so far in
``blobs/<checksum>.<file>.whisperd.incomplete``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from app.errors import Conflict
from app.model_names import PULL_PATTERNS, Source

#: A hub id: anything else must never become part of a path (where ``--`` stands for the slash).
HUB_ID = re.compile(r"(?!.*--)[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
#: What names a file by its content: git's SHA-1 of small files, SHA-256 of those in LFS.
CHECKSUM = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
#: The ending of a file that is not whole yet.
PARTIAL = ".whisperd.incomplete"
_CHUNK = 1 << 20


def damages(source: Source, cache_dir: Path) -> list[str]:
    """What is wrong with the downloaded files of a model, a sentence each; reads them all. No network."""
    folder = repository_folder(cache_dir, source.repo)
    found = []
    for link in _links(folder, source):
        name = link.readlink().name if link.is_symlink() else ""
        if not link.exists():
            found.append(f"The file {link.name} of {source.repo} is missing; pull the model again.")
        elif CHECKSUM.fullmatch(name) and not matches(link, name):
            found.append(f"The file {link.name} of {source.repo} is damaged; pull the model again.")
    if any(_partials(folder, source)):
        found.append(f"A download of {source.repo} broke off; pull it again, or remove it.")
    return found


def unchecked(source: Source, cache_dir: Path) -> list[str]:
    """The downloaded files of a model that lie in the cache without their checksums, as in a copy without links."""
    links = _links(repository_folder(cache_dir, source.repo), source)
    return [link.name for link in links if not (link.is_symlink() and CHECKSUM.fullmatch(link.readlink().name))]


def remove(source: Source, cache_dir: Path) -> int:
    """Remove a repository's downloads, or one file of a repository that holds many; returns the bytes freed.

    Raises ``Conflict`` while it is being downloaded.
    """
    folder = repository_folder(cache_dir, source.repo)
    before = size_of(folder)
    with locked(cache_dir, source.repo, wait=False):
        if source.file:
            links = list(_links(folder, source))
            blobs = _blobs_of(links)
            for link in links:
                link.unlink()
            unused = blobs - _blobs_of(folder.glob("snapshots/*/*"))
            for path in [*(folder / "blobs" / name for name in unused), *_partials(folder, source)]:
                path.unlink(missing_ok=True)
        if not source.file or not any(folder.glob("snapshots/*/*")):
            _remove_repository(folder, cache_dir)
    return before - size_of(folder)


def is_here(source: Source, cache_dir: Path) -> bool:
    """Whether anything of the source was downloaded, be it unfinished."""
    folder = repository_folder(cache_dir, source.repo)
    return any(_links(folder, source)) or is_unfinished(source, cache_dir)


def is_unfinished(source: Source, cache_dir: Path) -> bool:
    """Whether a download of ours broke off, and was not taken up again."""
    return any(_partials(repository_folder(cache_dir, source.repo), source))


def belongs_to(path: Path, source: Source, cache_dir: Path) -> bool:
    """Whether the model in ``path`` is a download of the source."""
    return path.is_relative_to(repository_folder(cache_dir, source.repo)) and source.file in (None, path.name)


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files in and below a folder; links that lead out of it count for nothing."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if not each.is_symlink()]
    return sum(each.lstat().st_size for each in files if each.is_file())


def repository_folder(cache_dir: Path, repo: str) -> Path:
    return cache_dir / f"models--{repo.replace('/', '--')}"


def repository_in(folder: Path) -> str:
    """The hub's id of the repository that a folder of the hub's cache holds."""
    return folder.name.removeprefix("models--").replace("--", "/", 1)


def snapshots(cache_dir: Path, repo: str) -> Iterator[Path]:
    """A repository's snapshots in the hub's cache: the one that ``main`` points at, then the others, newest first."""
    if not HUB_ID.fullmatch(repo):
        return
    folder = repository_folder(cache_dir, repo)
    try:
        main = (folder / "refs" / "main").read_text("utf-8").strip()
    except OSError:  # downloaded by its revision
        main = ""
    newest_first = sorted((folder / "snapshots").glob("*"), key=lambda path: path.lstat().st_mtime, reverse=True)
    yield from sorted(newest_first, key=lambda path: path.name != main)


def is_complete(snapshot: Path) -> bool:
    """Whether every file that a model may need and that the snapshot links to is there: a damaged one was removed."""
    return all(
        path.exists() for path in snapshot.glob("*") if any(fnmatchcase(path.name, each) for each in PULL_PATTERNS)
    )


def matches(path: Path, checksum: str) -> bool:
    in_lfs = len(checksum) == 64
    digest = hashlib.sha256() if in_lfs else hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == checksum


def _links(folder: Path, source: Source) -> Iterator[Path]:
    """A model's files in all snapshots; with ``*``, since pathlib finds no broken link by its name."""
    patterns = [source.file] if source.file else PULL_PATTERNS
    for link in sorted(folder.glob("snapshots/*/*")):
        if any(fnmatchcase(link.name, pattern) for pattern in patterns):
            yield link


def _partials(folder: Path, source: Source) -> Iterator[Path]:
    return folder.glob(f"blobs/*.{source.file or '*'}{PARTIAL}")


def _blobs_of(links: Iterable[Path]) -> set[str]:
    return {link.readlink().name for link in links if link.is_symlink()}


def _remove_repository(folder: Path, cache_dir: Path) -> None:
    """By huggingface_hub, which knows what blobs other repositories share; then what it knows nothing of."""
    from huggingface_hub import scan_cache_dir

    found = scan_cache_dir(cache_dir)
    ours = frozenset(each for each in found.repos if each.repo_path == folder.resolve())
    # Repositories copied with their history have revisions in common: without the others in sight, none of theirs goes.
    replace(found, repos=ours).delete_revisions(*(old.commit_hash for each in ours for old in each.revisions)).execute()
    if folder.exists():
        shutil.rmtree(folder)


@contextlib.contextmanager
def locked(cache_dir: Path, repo: str, *, wait: bool) -> Iterator[None]:
    """Hold the repository's lock, as no other process of ours does then. Raises ``Conflict`` where it may not wait."""
    path = cache_dir / ".locks" / f"whisperd--{repo.replace('/', '--')}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"{repo} is being downloaded right now; remove it when that is over.") from None
        yield

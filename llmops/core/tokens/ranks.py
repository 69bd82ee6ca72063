"""The vendored byte-pair ranks: unpacked once, checked always, loaded lazily.

tiktoken downloads its rank files, which a closed network does not allow. The same files lie gzipped in ``data/``;
here they are unpacked under the names that tiktoken looks for, into a cache directory that belongs to us: tiktoken
deletes a cached file whose hash is wrong, so it must never be pointed at tracked files.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import secrets
import threading
import zlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from llmops.core.errors import ConfigurationRefused
from llmops.core.memory import give_back

if TYPE_CHECKING:
    from tiktoken import Encoding


class TokenDataUnusable(ConfigurationRefused):
    """The rank files can not be unpacked, or are not the ones that tiktoken expects; the message says what to do."""

    code = "token_data_unusable"


@dataclass(frozen=True, slots=True)
class RankFile:
    """One rank file: the address tiktoken knows it by, and the SHA-256 that tiktoken pins for it."""

    encoding: str
    url: str
    sha256: str

    @property
    def cache_name(self) -> str:
        """The file name that ``tiktoken.load.read_file_cached`` looks for: the SHA-1 of the address."""
        return hashlib.sha1(self.url.encode(), usedforsecurity=False).hexdigest()

    @property
    def resource(self) -> str:
        return f"{self.encoding}.tiktoken.gz"


_BLOB = "https://openaipublic.blob.core.windows.net/encodings/"
RANK_FILES = {
    file.encoding: file
    for file in (
        RankFile(
            "o200k_base",
            _BLOB + "o200k_base.tiktoken",
            "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        ),
        RankFile(
            "cl100k_base",
            _BLOB + "cl100k_base.tiktoken",
            "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        ),
    )
}

_lock = threading.Lock()
_loaded: dict[str, Encoding] = {}
_chosen_dir: Path | None = None


def use_cache_dir(path: Path | str | None) -> None:
    """Unpack into ``path`` from now on, whatever the environment says (``None``: as the environment says).

    Encodings already loaded stay loaded.
    """
    global _chosen_dir
    _chosen_dir = None if path is None else Path(path)


def cache_dir() -> Path:
    """Where ranks are unpacked: ``use_cache_dir``, else ``TIKTOKEN_CACHE_DIR``, else ``<data dir>/tiktoken``.

    The data directory is ``CONSOLE_DATA_DIR``, or ``var`` below the working directory.
    """
    if _chosen_dir is not None:
        return _chosen_dir
    if named := os.environ.get("TIKTOKEN_CACHE_DIR"):
        return Path(named)
    return Path(os.environ.get("CONSOLE_DATA_DIR") or "var") / "tiktoken"


def prepare(*names: str) -> Path:
    """Make sure that the rank files of ``names`` (default: all) lie unpacked and intact in the cache directory.

    Returns that directory. A damaged cached file is replaced. Safe with any number of processes at once: each writes
    a file of its own and renames it into place. Raises ``TokenDataUnusable`` if the directory cannot be written or
    the vendored data is damaged.
    """
    directory = cache_dir().absolute()
    for name in names or tuple(RANK_FILES):
        _unpack(RANK_FILES[name], directory)
    return directory


def encoding(name: str) -> Encoding:
    """The tiktoken encoding, loaded at first use (0.2 s, 45 MB) and shared by all threads of the process."""
    ready = _loaded.get(name)
    if ready is not None:
        return ready
    with _lock:
        if name not in _loaded:
            _loaded[name] = _load(name)
        return _loaded[name]


def _load(name: str) -> Encoding:
    os.environ["TIKTOKEN_CACHE_DIR"] = str(prepare(name))
    import tiktoken

    loaded = tiktoken.get_encoding(name)
    # A second copy of the ranks, as 200,000 Python objects (28 MB), that tiktoken only reads when it pickles an
    # encoding which is not in its registry. Ours is.
    loaded._mergeable_ranks = {}
    give_back()
    return loaded


def _unpack(file: RankFile, directory: Path) -> None:
    target = directory / file.cache_name
    try:
        if _sha256(target.read_bytes()) == file.sha256:
            return
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _unusable(directory, error) from error
    data = _vendored(file)
    temporary = directory / f".{file.cache_name}.{os.getpid()}.{secrets.token_hex(4)}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(data)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(directory, error) from error


def _vendored(file: RankFile) -> bytes:
    source = resources.files(__package__) / "data" / file.resource
    try:
        data = gzip.decompress(source.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise TokenDataUnusable(
            f"The tokenizer data {file.resource} that ships with this package is missing or damaged ({error}): "
            "install the package again.",
        ) from error
    if _sha256(data) != file.sha256:
        raise TokenDataUnusable(
            f"The tokenizer data {file.resource} that ships with this package is not what tiktoken expects "
            f"(SHA-256 {_sha256(data)}, expected {file.sha256}): install the package again.",
        )
    return data


def _unusable(directory: Path, error: OSError) -> TokenDataUnusable:
    return TokenDataUnusable(
        f"The tokenizer data cannot be kept in {directory} ({error.strerror or error}): make that directory writable, "
        "or name another one in TIKTOKEN_CACHE_DIR.",
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

"""The vendored ranks: unpacked once, damage found, many processes and threads at once, never the network."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from llmops.core.tokens.ranks import RANK_FILES

ROOT = Path(__file__).resolve().parents[2]

# Any attempt to reach the network fails, so that a wrong file can not be replaced by a download.
NO_NETWORK = """
import socket
def refuse(*args, **kwargs): raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
"""
COUNT = NO_NETWORK + "from llmops.core import tokens\nprint(tokens.count_text('Hello world', 'gpt-4o'))"


def run(code: str, *, root: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if key != "TIKTOKEN_CACHE_DIR"}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**clean, "PYTHONPATH": str(root), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def cached(directory: Path, name: str = "o200k_base") -> Path:
    return directory / RANK_FILES[name].cache_name


def vendored(name: str = "o200k_base") -> bytes:
    return gzip.decompress((ROOT / "llmops/core/tokens/data" / RANK_FILES[name].resource).read_bytes())


def test_vendored_files_are_the_ones_tiktoken_pins() -> None:
    import inspect

    import tiktoken_ext.openai_public

    pinned = inspect.getsource(tiktoken_ext.openai_public)
    for file in RANK_FILES.values():
        assert hashlib.sha256(vendored(file.encoding)).hexdigest() == file.sha256
        assert file.url in pinned
        assert file.sha256 in pinned


def test_data_files_ship_with_the_package() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["llmops.core.tokens"]
    package = ROOT / "llmops/core/tokens"
    shipped = {path.name for pattern in patterns for path in package.glob(pattern)}
    assert {"NOTICE", *(file.resource for file in RANK_FILES.values())} <= shipped


def test_unpacks_into_the_data_directory_and_counts_without_a_network(tmp_path: Path) -> None:
    done = run(COUNT, CONSOLE_DATA_DIR=str(tmp_path))
    assert done.stdout.strip() == "2", done.stderr
    assert list((tmp_path / "tiktoken").iterdir()) == [cached(tmp_path / "tiktoken")]
    assert cached(tmp_path / "tiktoken").read_bytes() == vendored()


def test_cache_directory_named_in_the_environment_wins_over_the_data_directory(tmp_path: Path) -> None:
    done = run(COUNT, CONSOLE_DATA_DIR=str(tmp_path / "data"), TIKTOKEN_CACHE_DIR=str(tmp_path / "cache"))
    assert done.stdout.strip() == "2", done.stderr
    assert cached(tmp_path / "cache").exists()
    assert not (tmp_path / "data").exists()


def test_directory_given_by_the_caller_wins_over_both(tmp_path: Path) -> None:
    code = COUNT.replace(
        "print(", f"tokens.use_cache_dir({str(tmp_path / 'chosen')!r})\nassert tokens.prepare()\nprint("
    )
    done = run(code, TIKTOKEN_CACHE_DIR=str(tmp_path / "cache"))
    assert done.stdout.strip() == "2", done.stderr
    assert {path.name for path in (tmp_path / "chosen").iterdir()} == {
        file.cache_name for file in RANK_FILES.values()
    }
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["emptied", "one bit", "cut short"])
def test_a_damaged_cache_file_is_replaced(tmp_path: Path, damage: str) -> None:
    whole = vendored()
    broken = {
        "emptied": b"",
        "one bit": whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:],
        "cut short": whole[: len(whole) // 2],
    }[damage]
    cached(tmp_path).write_bytes(broken)
    done = run(COUNT, TIKTOKEN_CACHE_DIR=str(tmp_path))
    assert done.stdout.strip() == "2", done.stderr
    assert cached(tmp_path).read_bytes() == whole


@pytest.mark.parametrize("start", ["nothing there", "damaged"])
def test_many_processes_at_once_all_count(tmp_path: Path, start: str) -> None:
    if start == "damaged":
        cached(tmp_path).write_bytes(b"not ranks")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COUNT],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TIKTOKEN_CACHE_DIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert out.strip() == "2", err
    assert [path.name for path in tmp_path.iterdir()] == [RANK_FILES["o200k_base"].cache_name]


def test_many_threads_at_once_load_one_encoding(tmp_path: Path) -> None:
    code = NO_NETWORK + (
        "import threading\n"
        "from llmops.core.tokens import ranks\n"
        "gate = threading.Barrier(16); seen = []\n"
        "def load():\n"
        "    gate.wait(); seen.append(ranks.encoding('o200k_base'))\n"
        "threads = [threading.Thread(target=load) for _ in range(16)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "print(len(seen), len({id(one) for one in seen}))\n"
    )
    assert run(code, TIKTOKEN_CACHE_DIR=str(tmp_path)).stdout.split() == ["16", "1"]


@pytest.fixture
def copied_package(tmp_path: Path) -> Path:
    """A copy of ``llmops.core`` whose data files a test may damage."""
    root = tmp_path / "installed"
    shutil.copytree(ROOT / "llmops/core", root / "llmops/core", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "llmops/__init__.py").write_text("")
    return root


@pytest.mark.parametrize("damage", ["missing", "not gzip", "cut short", "other ranks"])
def test_damaged_vendored_data_is_refused_with_a_sentence(
    copied_package: Path, tmp_path: Path, damage: str
) -> None:
    shipped = copied_package / "llmops/core/tokens/data/o200k_base.tiktoken.gz"
    whole = shipped.read_bytes()
    if damage == "missing":
        shipped.unlink()
    else:
        shipped.write_bytes(
            {
                "not gzip": b"hello",
                "cut short": whole[: len(whole) // 2],
                "other ranks": gzip.compress(b"IQ== 0\n"),
            }[damage]
        )
    done = run(COUNT, root=copied_package, TIKTOKEN_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode != 0
    assert "TokenDataUnusable: The tokenizer data o200k_base.tiktoken.gz" in done.stderr
    assert "install the package again" in done.stderr
    assert not (tmp_path / "cache").exists() or not list((tmp_path / "cache").iterdir())


def test_damaged_vendored_data_does_not_matter_while_the_cache_is_whole(
    copied_package: Path, tmp_path: Path
) -> None:
    (tmp_path / "cache").mkdir()
    cached(tmp_path / "cache").write_bytes(vendored())
    (copied_package / "llmops/core/tokens/data/o200k_base.tiktoken.gz").unlink()
    done = run(COUNT, root=copied_package, TIKTOKEN_CACHE_DIR=str(tmp_path / "cache"))
    assert done.stdout.strip() == "2", done.stderr


def test_a_directory_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run(COUNT, TIKTOKEN_CACHE_DIR=str(tmp_path / "file" / "cache"))
    assert done.returncode != 0
    assert str(tmp_path / "file" / "cache") in done.stderr
    assert "TIKTOKEN_CACHE_DIR" in done.stderr


def test_importing_the_package_loads_no_tokenizer() -> None:
    code = (
        "import sys\nfrom llmops.core import tokens\ntokens.upper_bound('x'); tokens.encoding_for('gpt-4o')\n"
        "print('tiktoken' in sys.modules)"
    )
    assert run(code).stdout.strip() == "False"


def test_upper_bound_needs_no_data(copied_package: Path) -> None:
    shutil.rmtree(copied_package / "llmops/core/tokens/data")
    done = run("from llmops.core import tokens\nprint(tokens.upper_bound('é'))", root=copied_package)
    assert done.stdout.strip() == "2", done.stderr

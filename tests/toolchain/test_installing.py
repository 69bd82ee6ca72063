"""How ``./dev`` installs a lock file: by uv where there is one, by pip otherwise, and never anything that is not in the file."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.installation import ROOT

INSTALL = ROOT / ".ci" / "install.py"


@pytest.fixture(scope="module")
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", INSTALL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Packages:
    """A directory with one wheel, a lock file that names it, and an environment to install it in."""

    def __init__(self, home: Path) -> None:
        self.wheels, self.lock, self.venv = home / "wheels", home / "it.lock", home / "venv"
        self.wheels.mkdir()
        wheel = self.wheels / "answers-42-py3-none-any.whl"
        body = b"VALUE = 42\n"
        digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("answers.py", body)
            archive.writestr(
                "answers-42.dist-info/METADATA", "Metadata-Version: 2.1\nName: answers\nVersion: 42\n"
            )
            archive.writestr(
                "answers-42.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(
                "answers-42.dist-info/RECORD",
                f"answers.py,sha256={digest},{len(body)}\nanswers-42.dist-info/METADATA,,\n"
                "answers-42.dist-info/WHEEL,,\nanswers-42.dist-info/RECORD,,\n",
            )
        self.hash = hashlib.sha256(wheel.read_bytes()).hexdigest()
        self.lock.write_text(f"answers==42 --hash=sha256:{self.hash}\n")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", self.venv], check=True)

    def install(self, **env: str) -> subprocess.CompletedProcess[str]:
        nothing_else = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(self.wheels),
            "PIP_CONFIG_FILE": os.devnull,
        }
        return subprocess.run(
            [sys.executable, INSTALL, self.lock, self.venv / "bin" / "python"],
            env=os.environ | nothing_else | env,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def installed(self) -> str:
        command = [self.venv / "bin" / "python", "-c", "import answers; print(answers.VALUE)"]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.fixture
def packages(tmp_path: Path) -> Packages:
    return Packages(tmp_path)


@pytest.fixture
def a_uv(install: ModuleType) -> str:
    found: str | None = install.uv()
    assert found is not None, "a machine of ours has a uv, or pip gets one"
    return found


def test_uv_finds_packages_where_pip_is_told_they_are(packages: Packages, a_uv: str) -> None:
    done = packages.install(PATH=f"{Path(a_uv).parent}{os.pathsep}{os.environ['PATH']}")
    assert (done.returncode, done.stderr) == (0, "")
    assert packages.installed() == "42"
    by = next((packages.venv / "lib").rglob("answers-42.dist-info/INSTALLER")).read_text().strip()
    assert by == "uv"


def test_what_uv_cannot_install_pip_does(packages: Packages, tmp_path: Path) -> None:
    broken = tmp_path / "bin" / "uv"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho no such machine >&2\nexit 2\n")
    broken.chmod(0o755)
    done = packages.install(PATH=f"{broken.parent}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert "no such machine" in done.stderr and "Trying with pip" in done.stderr
    assert packages.installed() == "42"


def test_what_has_another_hash_is_not_installed_by_either(packages: Packages) -> None:
    packages.lock.write_text(f"answers==42 --hash=sha256:{'0' * 64}\n")
    done = packages.install()
    assert done.returncode != 0
    assert packages.hash in done.stderr
    assert packages.installed() == ""


def test_settings_of_pip_are_told_to_uv(install: ModuleType) -> None:
    listed = (
        ":env:.find-links='/wheels /more'\n"
        "global.cert='/etc/certificate'\n"
        "global.index-url='for-everybody'\n"
        "global.timeout='60'\n"
        "install.index-url='for-installing'\n"
        "install.extra-index-url='one\\nanother'\n"
    )
    assert install.settings_for_uv(listed) == {
        "UV_DEFAULT_INDEX": "for-installing",
        "UV_INDEX": "one another",
        "UV_FIND_LINKS": "/wheels,/more",
        "SSL_CERT_FILE": "/etc/certificate",
    }
    assert install.settings_for_uv("") == {}

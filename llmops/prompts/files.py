"""Prompts as plain files, so that a repository can hold them: one folder a prompt. Pure.

    triage/
      prompt.yaml          description, variables, route, parameters, token_ceiling, samples, note
      system.md task.md context.md user.md
      output_schema.json

Layers are kept to the byte; a layer without a file is empty. A sample's ``digest`` promises its rendering: whoever imports the
folder is told when it has changed.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from llmops.core.errors import InvalidRequest
from llmops.prompts.content import EMPTY
from llmops.prompts.rendering import LAYERS

ABOUT, SCHEMA = "prompt.yaml", "output_schema.json"
_MEMBERS = ("variables", "route", "parameters", "token_ceiling", "samples")
_KNOWN = (*_MEMBERS, "description", "note")
MOST_ARCHIVE, MOST_UNPACKED, MOST_FILE, MOST_FILES = 10_000_000, 40_000_000, 1_500_000, 6_000
_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
#: So that equal prompts are equal archives.
_WRITTEN = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Folder:
    slug: str
    content: dict[str, Any]
    description: str | None = None
    note: str = ""


def folder_of(
    content: Mapping[str, Any],
    *,
    description: str = "",
    note: str = "",
    renderings: Iterable[Mapping[str, Any]] = (),
) -> dict[str, str]:
    """The files of one prompt, by their names within its folder."""
    files = {f"{name}.md": content[name] for name in LAYERS if content[name]}
    promised = {one["name"]: one["digest"] for one in renderings if one.get("name")}
    about: dict[str, Any] = {"description": description} if description else {}
    if note:
        about["note"] = note
    for name in _MEMBERS:
        if content[name] != EMPTY[name]:
            about[name] = content[name]
    if "samples" in about:
        about["samples"] = [
            {**one, **({"digest": promised[one["name"]]} if one["name"] in promised else {})}
            for one in about["samples"]
        ]
    if "variables" not in about:
        # Said, so that nothing is guessed from the layers.
        about["variables"] = []
    files[ABOUT] = yaml.dump(about, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    if content["output_schema"] is not None:
        files[SCHEMA] = json.dumps(content["output_schema"], ensure_ascii=False, indent=2) + "\n"
    return files


def read_folder(slug: str, files: Mapping[str, str]) -> Folder:
    """What a folder says. Raises ``InvalidRequest`` naming the file that is wrong (``triage/prompt.yaml``)."""
    if not _SLUG.fullmatch(slug):
        raise InvalidRequest(f"{slug[:80]}: a folder has the name of its prompt.", param="archive")
    for name in files:
        if name not in (ABOUT, SCHEMA) and name.removesuffix(".md") not in LAYERS:
            raise _wrong(
                slug,
                name,
                f"there is no such file in a prompt; there are {ABOUT}, {SCHEMA} and layers (task.md)",
            )
    about = _about(slug, files[ABOUT]) if ABOUT in files else {}
    content: dict[str, Any] = {name: files.get(f"{name}.md", "") for name in LAYERS}
    content |= {name: about[name] for name in _MEMBERS if about.get(name) is not None}
    if SCHEMA in files:
        try:
            content["output_schema"] = json.loads(files[SCHEMA])
        except (ValueError, RecursionError):
            raise _wrong(slug, SCHEMA, "not JSON") from None
    for name in ("description", "note"):
        if not isinstance(about.get(name, ""), str):
            raise _wrong(slug, ABOUT, f"{name}: give text")
    return Folder(slug, content, about.get("description"), about.get("note", ""))


def pack(folders: Mapping[str, Mapping[str, str]]) -> bytes:
    """Folders as a ZIP archive; equal folders give equal bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for slug in sorted(folders):
            for name in sorted(folders[slug]):
                entry = zipfile.ZipInfo(f"{slug}/{name}", _WRITTEN)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, folders[slug][name].encode())
    return packed.getvalue()


def unpack(data: bytes) -> list[Folder]:
    """The folders of a ZIP archive, also where they stand inside of one other folder. Bounded, whatever the archive claims.

    Raises ``InvalidRequest`` naming what is wrong.
    """
    if len(data) > MOST_ARCHIVE:
        raise InvalidRequest(f"archive: at most {MOST_ARCHIVE:,} bytes.", param="archive")
    found: dict[str, dict[str, str]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = [
                entry for entry in archive.infolist() if not entry.is_dir() and not _litter(entry.filename)
            ]
            if len(entries) > MOST_FILES:
                raise InvalidRequest(f"archive: at most {MOST_FILES:,} files.", param="archive")
            left = MOST_UNPACKED
            for entry in entries:
                *_, slug, name = (
                    ("", *entry.filename.split("/"))[-3:] if "/" in entry.filename else ("", "", "")
                )
                if (
                    not slug
                    or ".." in entry.filename
                    or entry.filename.startswith("/")
                    or "\\" in entry.filename
                ):
                    raise InvalidRequest(
                        f"archive: {entry.filename[:100]!r} stands in no folder of a prompt.", param="archive"
                    )
                text = _read(archive, entry, left)
                left -= len(text)
                if name in found.setdefault(slug, {}):
                    raise InvalidRequest(f"archive: {slug}/{name} stands there twice.", param="archive")
                found[slug][name] = _decoded(slug, name, text)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError, OSError) as failed:
        if isinstance(failed, InvalidRequest):
            raise
        raise InvalidRequest("archive: not a ZIP archive that can be read.", param="archive") from None
    if not found:
        raise InvalidRequest("archive: there is no folder of a prompt in it.", param="archive")
    return [read_folder(slug, found[slug]) for slug in sorted(found)]


def _litter(name: str) -> bool:
    """What file managers leave in archives."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2] in (".DS_Store", "Thumbs.db")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, left: int) -> bytes:
    most = min(left, MOST_FILE)
    with archive.open(entry) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise InvalidRequest(f"archive: {entry.filename[:100]} is too large.", param="archive")
    return data


def _decoded(slug: str, name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _wrong(slug, name, "not UTF-8") from None


def _about(slug: str, text: str) -> dict[str, Any]:
    try:
        about = yaml.load(text, Loader=_Loader)  # noqa: S506 (a safe loader without aliases)
    except (yaml.YAMLError, ValueError, RecursionError) as wrong:
        mark = getattr(wrong, "problem_mark", None)
        raise _wrong(slug, ABOUT, f"not YAML{f' (line {mark.line + 1})' if mark else ''}") from None
    if about is None:
        return {}
    if not isinstance(about, dict):
        raise _wrong(slug, ABOUT, "give members such as description and variables")
    for name in about:
        if name not in _KNOWN:
            raise _wrong(slug, ABOUT, f"there is no member {str(name)[:60]!r}; there are {', '.join(_KNOWN)}")
    return about


def _wrong(slug: str, name: str, what: str) -> InvalidRequest:
    path = f"{slug}/{name[:80]}"
    return InvalidRequest(f"{path}: {what}.", param=path)


class _Loader(yaml.SafeLoader):
    """Without aliases, which can stand for more than any memory holds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not read")
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)

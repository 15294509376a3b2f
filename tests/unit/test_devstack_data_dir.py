"""The data directory: modes whatever the umask, whole files, one dev at a time, finding the one that runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration_service.contracts.errors import ErrorCode, IntegrationError
from integration_service.devstack import DEFAULT_DATA_DIR, Ready, RunningStack, find_stack
from integration_service.devstack.claims import claim_data_dir, is_held, read_pid
from integration_service.devstack.data_dir import DataDir, make_folder, open_data_dir, write_private

READY = Ready(
    temporal="127.0.0.1:7233",
    namespace="default",
    task_queue="integrations",
    gateway="http://127.0.0.1:8700",
    ui="http://127.0.0.1:8233",
    database="postgresql://integrations:password@127.0.0.1:5432/integrations",
    postgres_data="/data/postgres",
)


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=lambda mask: f"umask{mask:03o}")
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.mark.usefixtures("umask")
def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    as_root = os.geteuid() == 0
    data_dir = open_data_dir(tmp_path / "new parent" / "data")
    data_dir.prepare_folders()
    write_private(data_dir.keyring, "secret")
    assert mode(data_dir.path) == (0o711 if as_root else 0o700)
    assert mode(data_dir.path.parent) == (0o755 if as_root else 0o700)
    assert mode(data_dir.claims) == mode(data_dir.log("x").parent) == 0o700
    assert mode(data_dir.keyring) == mode(data_dir.temporal_config) == 0o600


@pytest.mark.parametrize("kept", [0o700, 0o755, 0o1777])
def test_modes_of_existing_folders_stay(tmp_path: Path, kept: int) -> None:
    existing = tmp_path / "existing"
    existing.mkdir()
    existing.chmod(kept)
    open_data_dir(existing).prepare_folders()
    make_folder(existing / "new", 0o755)
    assert mode(existing) == kept


def test_write_private_replaces_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old and longer")
    file.chmod(0o644)
    write_private(file, "new")
    assert (file.read_text(), mode(file)) == ("new", 0o600)
    assert list(tmp_path.iterdir()) == [file]


def test_a_data_dir_that_is_a_file_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        open_data_dir(tmp_path / "file" / "data")


async def test_the_second_dev_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    first = await claim_data_dir(data_dir.lock, tmp_path)
    with pytest.raises(IntegrationError) as caught:
        await claim_data_dir(data_dir.lock, tmp_path)
    assert caught.value.code == ErrorCode.UNAVAILABLE
    assert str(tmp_path) in caught.value.message
    assert str(os.getpid()) in caught.value.message
    os.close(first)
    os.close(await claim_data_dir(data_dir.lock, tmp_path))


async def test_find_stack_needs_the_very_dev_that_wrote_the_file(tmp_path: Path) -> None:
    data_dir = DataDir(tmp_path)
    running = RunningStack(os.getpid(), READY, "http://127.0.0.1:7243", {"TEMPORAL_NAMESPACE": "default"})
    assert find_stack(tmp_path / "missing") is None
    running.write(data_dir)
    assert mode(data_dir.stack_file) == 0o600
    assert find_stack(tmp_path) is None  # never locked

    lock = await claim_data_dir(data_dir.lock, tmp_path)
    assert find_stack(tmp_path) == running
    data_dir.lock.write_text("1\n")  # a later dev, still starting
    assert find_stack(tmp_path) is None
    data_dir.lock.write_text(f"{os.getpid()}\n")
    os.close(lock)
    assert find_stack(tmp_path) is None


def test_a_claim_ends_with_its_holder_by_kill_9(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, os, sys, signal\n"
            "fd = os.open(sys.argv[1], os.O_RDONLY | os.O_CREAT)\n"
            "fcntl.flock(fd, fcntl.LOCK_EX)\n"
            "print('held', flush=True); signal.pause()",
            lock,
        ],
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert is_held(lock)
        holder.kill()
    assert not is_held(lock)
    assert read_pid(lock) is None


def test_ready_shows_no_password_but_on_the_wire() -> None:
    assert "password" not in repr(READY)
    assert list(READY.to_wire()) == [
        "temporal",
        "namespace",
        "taskQueue",
        "gateway",
        "ui",
        "database",
        "postgresData",
    ]
    assert Ready.from_wire(READY.to_wire()) == READY


def test_the_default_data_dir_is_the_users() -> None:
    assert DEFAULT_DATA_DIR.is_absolute()
    assert DEFAULT_DATA_DIR.name == "integration-service"

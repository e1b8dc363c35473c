"""Saving is atomic, never overwrites a file, and never gives two files one name."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from clipgen.errors import OutputError
from clipgen.hashing import sha256_of
from clipgen.image_file import check_writable, save_bytes
from clipgen.image_file.save import sweep

DATA = bytes(range(256)) * 400
# Python 3.12 warns of threads that other tests left in this process; the children only touch files.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def fork_child(work: Callable[[], object]) -> int:
    """Runs `work` in a forked process and returns its process id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - the exit code reports it
            os._exit(1)
        os._exit(0)
    return child


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def disable_hard_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)


@pytest.fixture(params=["links", "no links"])
def _file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a test with hard links, as on ext4, and without them, as on exFAT."""
    if request.param == "no links":
        disable_hard_links(monkeypatch)


@pytest.mark.usefixtures("_file_system")
def test_an_existing_name_gets_the_next_number(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    made = [save_bytes(DATA + bytes([i]), folder, "fox-42", ".png") for i in range(4)]
    assert [path.name for path in made] == ["fox-42.png", "fox-42-1.png", "fox-42-2.png", "fox-42-3.png"]
    assert [path.read_bytes() for path in made] == [DATA + bytes([i]) for i in range(4)]
    assert names(folder) == sorted(path.name for path in made)


@pytest.mark.usefixtures("_file_system")
def test_the_number_follows_the_highest_existing_one(tmp_path: Path) -> None:
    for name in ("fox.png", "fox-7.png", "fox-3.png", "fox-9.jpg", "fox-x.png", "afox-99.png", "fox-1-2.png"):
        (tmp_path / name).write_bytes(b"old")
    assert save_bytes(DATA, tmp_path, "fox", ".png").name == "fox-8.png"
    assert save_bytes(DATA, tmp_path, "fox", ".png").name == "fox-9.png"
    assert save_bytes(DATA, tmp_path, "fox", ".jpg").name == "fox.jpg"
    assert (tmp_path / "fox.png").read_bytes() == b"old"


@pytest.mark.usefixtures("_file_system")
@pytest.mark.parametrize("stem", ["a(b)[c]*?.+", "雪", "-rf", "a b", "..a", "\u202egnp"])
def test_special_characters_in_a_stem_are_literal(tmp_path: Path, stem: str) -> None:
    assert [save_bytes(DATA, tmp_path, stem, ".png").name for _ in range(3)] == [
        f"{stem}.png",
        f"{stem}-1.png",
        f"{stem}-2.png",
    ]


@pytest.mark.usefixtures("_file_system")
def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    victim = tmp_path / "elsewhere" / "victim"
    victim.write_bytes(b"old")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "fox.png").symlink_to(victim)
    (folder / "fox-1.png").symlink_to(tmp_path / "elsewhere" / "dangling")
    assert save_bytes(DATA, folder, "fox", ".png").name == "fox-2.png"
    assert victim.read_bytes() == b"old"
    assert names(tmp_path / "elsewhere") == ["victim"]


def test_file_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        path = save_bytes(DATA, tmp_path, "fox", ".png")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.usefixtures("_file_system")
def test_eight_processes_saving_one_name_lose_no_file(tmp_path: Path) -> None:
    def work(number: int) -> None:
        for i in range(50):
            save_bytes(DATA[:2_000] + bytes([number, i]), tmp_path, "fox-42", ".png")

    children = [fork_child(lambda number=number: work(number)) for number in range(8)]  # type: ignore[misc]
    assert [exit_code(child) for child in children] == [0] * 8
    contents = {(tmp_path / name).read_bytes() for name in names(tmp_path)}
    assert contents == {DATA[:2_000] + bytes([number, i]) for number in range(8) for i in range(50)}
    assert len(names(tmp_path)) == 400


@pytest.mark.usefixtures("_file_system")
def test_fifty_kills_while_saving_neither_truncate_nor_lose_an_image(tmp_path: Path) -> None:
    rng = random.Random(0)
    old = save_bytes(DATA[::-1], tmp_path, "fox", ".png")
    data = DATA * 3
    saved = tmp_path / "saved.txt"
    saved.touch()

    def work() -> None:
        with saved.open("a") as log:
            while True:
                log.write(f"{save_bytes(data, tmp_path, 'fox', '.png').name}\n")
                log.flush()

    for _ in range(50):
        before = saved.stat().st_size
        child = fork_child(work)
        while saved.stat().st_size == before:  # each child saves at least one file, also on a slow machine
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.015))
        os.kill(child, signal.SIGKILL)
        assert exit_code(child) == -signal.SIGKILL
    whole = sha256_of(data)
    made = {path.name for path in tmp_path.glob("*.png")} - {old.name}
    assert len(made) >= 50
    assert {sha256_of(tmp_path / name) for name in made} == {whole}
    assert set(saved.read_text().split()) <= made
    assert old.read_bytes() == DATA[::-1]
    leftovers = set(names(tmp_path)) - made - {old.name, "saved.txt"}
    assert all(name.startswith(".fox") for name in leftovers)
    for name in leftovers:
        os.utime(tmp_path / name, (0, 0))
    sweep(tmp_path)
    assert set(names(tmp_path)) == made | {old.name, "saved.txt"}


def test_a_full_disk_is_one_error_and_old_files_stay(tmp_path: Path) -> None:
    old = [save_bytes(DATA + bytes([i]), tmp_path, "fox", ".png") for i in range(10)]
    before = [sha256_of(path) for path in old]

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        with pytest.raises(OutputError, match=r"fox\.png' \(102,400 bytes\): File too large\.$"):
            save_bytes(DATA, tmp_path, "fox", ".png")

    assert exit_code(fork_child(work)) == 0
    assert [sha256_of(path) for path in old] == before
    assert len(names(tmp_path)) == 10  # no temporary file either


def test_a_folder_without_write_permission_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)

    def work() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)  # root may write everywhere
        with pytest.raises(OutputError, match=r"^Cannot write '.*fox\.png' \(102,400 bytes\): Permission denied\.$"):
            save_bytes(DATA, tmp_path, "fox", ".png")
        with pytest.raises(OutputError, match="Permission denied"):
            check_writable(tmp_path, 1)

    assert exit_code(fork_child(work)) == 0
    tmp_path.chmod(0o755)
    assert names(tmp_path) == []


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"old")
    for call in (lambda folder: save_bytes(DATA, folder, "a", ".png"), lambda folder: check_writable(folder, 1)):
        with pytest.raises(OutputError, match=r"out.*: (File exists|Not a directory)\.$"):
            call(tmp_path / "out")
        with pytest.raises(OutputError, match="Not a directory"):
            call(tmp_path / "out" / "below")
    assert (tmp_path / "out").read_bytes() == b"old"


def test_a_name_too_long_for_the_file_system_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="File name too long") as caught:
        save_bytes(DATA, tmp_path, "x" * 300, ".png")
    assert "\n" not in str(caught.value)


def test_check_writable_creates_an_empty_folder(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b", 1_000)
    assert names(tmp_path / "a" / "b") == []


def test_check_writable_requires_enough_free_space(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"needs 1,000,000,000,000,000,000 bytes, [\d,]+ are free\.$") as caught:
        check_writable(tmp_path, 10**18)
    assert caught.value.field == "output"
    assert caught.value.exit_code == 1


def test_sweep_deletes_only_old_temporary_files_of_clipgen(tmp_path: Path) -> None:
    ours = [".fox.png.123.0123abcd.tmp", ".fox.png.claim"]
    others = ["fox.png.123.0123abcd.tmp", ".fox.png.123.0123abcd.tmp~", ".fox.tmp", ".cache", "a.claim", "x.png"]
    for name in ours + others:
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".young.png.123.0123abcd.tmp").write_bytes(b"")
    (tmp_path / ".folder.png.claim").mkdir()
    os.utime(tmp_path / ".folder.png.claim", (0, 0))
    (tmp_path / ".link.png.claim").symlink_to(tmp_path / "x.png")
    check_writable(tmp_path, 1)
    kept = [*others, ".young.png.123.0123abcd.tmp", ".folder.png.claim", ".link.png.claim"]
    assert names(tmp_path) == sorted(kept)


def test_a_name_claimed_by_another_process_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disable_hard_links(monkeypatch)
    (tmp_path / ".fox.png.claim").write_bytes(b"")
    assert save_bytes(DATA, tmp_path, "fox", ".png").name == "fox-1.png"
    assert names(tmp_path) == [".fox.png.claim", "fox-1.png"]

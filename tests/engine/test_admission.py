from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from app.engine.admission import Admission, QueueLimits, Upload
from app.engine.spool import Spool
from app.errors import QueueFull, StorageFull

MIB = 2**20
#: Room is taken in such pieces for an upload that does not say how long it is.
PIECE = 16 * MIB


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool")
    yield opened
    opened.close()


def admission(spool: Spool, *, jobs: int = 8, mib: int = 100) -> Admission:
    return Admission(spool, QueueLimits(jobs, mib * MIB, 3600))


def taken(admitted: Admission) -> tuple[int, int]:
    """Slots and MiB."""
    assert admitted.bytes % MIB == 0
    return admitted.slots, admitted.bytes // MIB


def keep(admitted: Admission, kept: list[Upload]) -> None:
    """Have the uploads ``kept`` in case, to be given up one by one, the first first."""

    def make_room() -> bool:
        if not kept:
            return False
        kept.pop(0).close()
        return True

    admitted.make_room = make_room


def folders(spool: Spool) -> set[Path]:
    return set(spool.path.glob("job-*"))


# --- slots ---


def test_an_upload_has_a_slot_and_a_private_folder_until_it_is_closed(spool: Spool) -> None:
    admitted = admission(spool)
    upload = admitted.enter()
    assert taken(admitted) == (1, 0)
    assert folders(spool) == {upload.folder} == {upload.source.parent}
    upload.source.write_bytes(b"sound")
    upload.close()
    assert taken(admitted) == (0, 0)
    assert folders(spool) == set()


def test_as_many_come_in_as_there_are_slots_and_the_next_once_one_has_left(spool: Spool) -> None:
    admitted = admission(spool, jobs=2)
    first, _ = admitted.enter(), admitted.enter()
    with pytest.raises(QueueFull, match="2 requests"):
        admitted.enter()
    assert taken(admitted) == (2, 0)
    assert len(folders(spool)) == 2
    first.close()
    admitted.enter()


@pytest.mark.parametrize(("jobs", "reserve"), [(1, 1), (8, 1), (15, 1), (16, 2), (64, 8)])
def test_retries_alone_may_use_the_reserve_and_that_has_an_end_too(spool: Spool, jobs: int, reserve: int) -> None:
    admitted = admission(spool, jobs=jobs)
    for _ in range(jobs):
        admitted.enter()
    for _ in range(reserve):
        with pytest.raises(QueueFull):
            admitted.enter()
        admitted.enter(retry=True)
    with pytest.raises(QueueFull):
        admitted.enter(retry=True)


def test_a_slot_given_back_is_free_while_the_upload_keeps_its_room_on_the_disk(spool: Spool) -> None:
    admitted = admission(spool, jobs=1)
    left = admitted.enter(10 * MIB)
    left.give_slot()
    left.give_slot()
    assert taken(admitted) == (0, 10)
    admitted.enter()
    left.take_slot()
    left.take_slot()
    assert taken(admitted) == (2, 10), "who comes back is not refused, whatever the limit"


# --- room on the disk ---


def test_an_announced_size_is_taken_at_once_and_no_more_comes_in_than_fits(spool: Spool) -> None:
    admitted = admission(spool, mib=100)
    admitted.enter(60 * MIB)
    with pytest.raises(QueueFull, match="100 MiB"):
        admitted.enter(41 * MIB)
    assert taken(admitted) == (1, 60)
    assert len(folders(spool)) == 1
    admitted.enter(40 * MIB)
    assert taken(admitted) == (2, 100)


def test_an_upload_that_does_not_say_its_size_takes_room_in_pieces_as_it_grows(spool: Spool) -> None:
    admitted = admission(spool)
    upload = admitted.enter()
    for size, mib in ((1, 16), (PIECE, 16), (PIECE + 1, 32), (2 * PIECE - 1, 32), (2 * PIECE, 32), (5 * PIECE, 80)):
        upload.grow(size)
        assert taken(admitted) == (1, mib)
    upload.resize(70 * MIB)
    assert taken(admitted) == (1, 70), "what it did not need is given back once it is whole"


def test_an_announced_upload_takes_no_piece_until_it_is_longer_than_it_said(spool: Spool) -> None:
    admitted = admission(spool)
    upload = admitted.enter(20 * MIB)
    upload.grow(20 * MIB)
    assert taken(admitted) == (1, 20)
    upload.grow(20 * MIB + 1)
    assert taken(admitted) == (1, 32)


def test_an_upload_that_grows_beside_others_is_refused_where_no_room_is_left(spool: Spool) -> None:
    admitted = admission(spool, mib=40)
    admitted.enter(20 * MIB)
    growing = admitted.enter()
    growing.grow(PIECE)
    with pytest.raises(QueueFull):
        growing.grow(PIECE + 1)
    assert taken(admitted) == (2, 36), "what it had it keeps until it is closed"
    growing.close()
    assert taken(admitted) == (1, 20)


def test_an_announced_upload_that_comes_alone_gets_in_however_large_it_is(spool: Spool) -> None:
    admitted = admission(spool, mib=40)
    large = admitted.enter(500 * MIB)
    assert taken(admitted) == (1, 500)
    with pytest.raises(QueueFull):
        admitted.enter(1)
    admitted.enter().close()
    large.close()
    admitted.enter(1)


def test_an_upload_that_grows_alone_gets_in_however_large_it_is(spool: Spool) -> None:
    admitted = admission(spool, mib=40)
    upload = admitted.enter()
    upload.grow(PIECE)
    upload.grow(500 * MIB)
    assert taken(admitted) == (1, 512)


def test_what_is_kept_in_case_is_given_up_piece_by_piece_until_there_is_room(spool: Spool) -> None:
    admitted = admission(spool, mib=100)
    oldest, second, newest = kept = [admitted.enter(30 * MIB) for _ in range(3)]
    keep(admitted, kept)
    admitted.enter(10 * MIB)
    assert kept == [oldest, second, newest]
    admitted.enter(50 * MIB)
    assert kept == [newest]
    assert taken(admitted) == (3, 90)


def test_an_upload_that_grows_makes_room_too(spool: Spool) -> None:
    admitted = admission(spool, mib=100)
    keep(admitted, [admitted.enter(90 * MIB)])
    admitted.enter().grow(1)
    assert taken(admitted) == (1, 16)


def test_who_finds_no_room_is_refused_once_nothing_is_left_to_give_up(spool: Spool) -> None:
    admitted = admission(spool, mib=100)
    admitted.enter(80 * MIB)
    kept = [admitted.enter(20 * MIB)]
    keep(admitted, kept)
    with pytest.raises(QueueFull):
        admitted.enter(21 * MIB)
    assert kept == []
    assert taken(admitted) == (1, 80)


def test_a_full_queue_gives_nothing_up_since_no_slot_is_won_by_it(spool: Spool) -> None:
    admitted = admission(spool, jobs=1)
    admitted.enter()
    admitted.make_room = lambda: pytest.fail("something was given up")
    with pytest.raises(QueueFull):
        admitted.enter()


# --- the end ---


def test_closing_again_gives_nothing_back_again(spool: Spool) -> None:
    admitted = admission(spool)
    upload, other = admitted.enter(10 * MIB), admitted.enter(20 * MIB)
    upload.close()
    upload.close()
    assert taken(admitted) == (1, 20)
    assert folders(spool) == {other.folder}


def test_where_the_disk_takes_no_folder_nothing_is_taken(spool: Spool) -> None:
    admitted = admission(spool)
    spool.path.rename(spool.path.with_name("elsewhere"))
    spool.path.touch()
    with pytest.raises(StorageFull):
        admitted.enter(10 * MIB)
    assert taken(admitted) == (0, 0)


def test_an_upload_whose_folder_is_gone_can_be_closed(spool: Spool) -> None:
    admitted = admission(spool)
    upload = admitted.enter(10 * MIB)
    upload.folder.rmdir()
    upload.close()
    assert taken(admitted) == (0, 0)


# --- any sequence ---


class Uploads(RuleBasedStateMachine):
    """Uploads come, grow, are left, come back and end in any order; those left are given up to make room."""

    uploads = Bundle("uploads")
    sizes = st.integers(0, 80).map(lambda mib: mib * MIB) | st.integers(0, 80 * MIB)

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.TemporaryDirectory()
        self.spool = Spool(Path(self.root.name))
        self.admission = admission(self.spool, jobs=3, mib=64)
        self.admission.make_room = self.give_up
        #: Of each open upload: what it takes, and whether it has a slot.
        self.bytes: dict[Upload, int] = {}
        self.slots: dict[Upload, bool] = {}
        self.left: list[Upload] = []

    def give_up(self) -> bool:
        if not self.left:
            return False
        self.forget(self.left[0])
        return True

    def forget(self, upload: Upload) -> None:
        upload.close()
        self.bytes.pop(upload, None)
        self.slots.pop(upload, None)
        if upload in self.left:
            self.left.remove(upload)

    def refused(self, size: int, others: int) -> None:
        """It was right to refuse an upload of ``size`` beside ``others``."""
        assert others, "what comes alone always gets in"
        assert others + size > 64 * MIB
        assert self.left == [], "something could have been given up"

    @rule(target=uploads, size=sizes, retry=st.booleans())
    def enter(self, size: int, retry: bool) -> Upload | None:
        full = sum(self.slots.values()) >= 3 + retry
        try:
            upload = self.admission.enter(size, retry=retry)
        except QueueFull:
            if not full:
                self.refused(size, sum(self.bytes.values()))
            return None
        assert not full
        self.bytes[upload], self.slots[upload] = size, True
        return upload

    @rule(upload=uploads, size=sizes)
    def grow(self, upload: Upload | None, size: int) -> None:
        if upload in self.bytes and upload not in self.left:
            before = self.bytes[upload]
            self.change(upload, upload.grow, size, before if size <= before else -(-size // PIECE) * PIECE)

    @rule(upload=uploads, size=sizes)
    def resize(self, upload: Upload | None, size: int) -> None:
        if upload in self.bytes and upload not in self.left:
            self.change(upload, upload.resize, size, size)

    def change(self, upload: Upload, change: Callable[[int], None], size: int, takes: int) -> None:
        try:
            change(size)
        except QueueFull:
            self.refused(takes, sum(self.bytes.values()) - self.bytes[upload])
        else:
            self.bytes[upload] = takes

    @rule(upload=uploads)
    def leave(self, upload: Upload | None) -> None:
        if upload in self.bytes and upload not in self.left:
            upload.give_slot()
            self.slots[upload] = False
            self.left.append(upload)

    @rule(upload=uploads)
    def come_back(self, upload: Upload | None) -> None:
        if upload in self.left:
            upload.take_slot()
            self.slots[upload] = True
            self.left.remove(upload)

    @rule(upload=uploads)
    def close(self, upload: Upload | None) -> None:
        if upload is not None:
            self.forget(upload)

    @invariant()
    def what_is_taken_is_what_the_open_uploads_have(self) -> None:
        assert self.admission.slots == sum(self.slots.values())
        assert self.admission.bytes == sum(self.bytes.values())
        assert folders(self.spool) == {upload.folder for upload in self.bytes}

    @invariant()
    def only_what_is_alone_takes_more_than_the_limit(self) -> None:
        assert self.admission.bytes <= 64 * MIB or len([size for size in self.bytes.values() if size]) == 1

    def teardown(self) -> None:
        for upload in list(self.bytes):
            self.forget(upload)
        assert taken(self.admission) == (0, 0)
        self.spool.close()
        self.root.cleanup()


def test_whatever_comes_and_goes_what_is_taken_is_what_the_open_uploads_have() -> None:
    run_state_machine_as_test(Uploads, settings=settings(deadline=None, stateful_step_count=30))

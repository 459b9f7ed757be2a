from __future__ import annotations

from app.errors import ERRORS, QueueFull, WhisperdError, error_from_code


def test_every_code_is_its_own_class() -> None:
    classes: set[type[WhisperdError]] = set()

    def walk(root: type[WhisperdError]) -> None:
        classes.add(root)
        for child in root.__subclasses__():
            walk(child)

    walk(WhisperdError)
    assert set(ERRORS.values()) == classes


def test_an_error_crosses_a_process_as_code_message_and_param() -> None:
    error = error_from_code("queue_full", "full", "file")
    assert type(error) is QueueFull
    assert (error.message, error.status, error.param, str(error)) == ("full", 429, "file", "full")


def test_an_unknown_code_is_a_server_error() -> None:
    assert error_from_code("from_the_future", "?").status == 500


def test_statuses_that_sdks_retry_by_mistake_come_with_the_word_that_stops_them() -> None:
    assert not {409, 415, 422} & {error.status for error in ERRORS.values() if error.should_retry is not False}
    assert not {408} & {error.status for error in ERRORS.values() if error.should_retry is None}

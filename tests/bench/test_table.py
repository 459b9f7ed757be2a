"""The table as people read it, and the JSON that programs read."""

from __future__ import annotations

import json

from app.bench import table
from app.bench.plan import quoted_rows
from app.bench.row import Row, Status
from tests.bench.rows import CONDITIONS, measured


def lines(rows: list[Row], *, with_quoted: bool = False) -> list[str]:
    return table.text(CONDITIONS, "Apple M4 Pro", rows, with_quoted=with_quoted).splitlines()


def test_a_row_has_its_figures_below_their_titles() -> None:
    head, versions, recordings, _, titles, _, row, *_ = lines([measured("mlx-whisper", "base")])
    assert head == "Apple M4 Pro"
    assert versions == "whisperd 0.1.0, python 3.12.3, mlx-whisper 1.0"
    assert recordings == "2 recordings, with references; median of 3 rounds."
    assert " ".join(titles.split()) == ("model backend device precision x real time dictation load memory word errors")
    assert " ".join(row.split()) == "base mlx-whisper gpu float16 20.0 0.25 s 0.50 s 1.40 GB 2.5 %"
    ends = [titles.index(title) + len(title) for title in ("x real time", "memory", "word errors")]
    assert [row[:end].rsplit("  ", 1)[1].strip() for end in ends] == ["20.0", "1.40 GB", "2.5 %"]


def test_without_references_there_is_no_column_of_word_errors() -> None:
    shown = "\n".join(lines([measured("mlx-whisper", "base", words=0, errors=0)]))
    assert "word errors" not in shown
    assert "0.0 %" not in shown


def test_columns_are_there_for_what_was_measured_alone() -> None:
    assert "dictation" not in "\n".join(lines([measured("mlx-whisper", "base", short_s=None)]))
    shown = "\n".join(
        lines([measured("mlx-whisper", "base", library_peak=900_000_000), measured("whisper.cpp", "base")])
    )
    assert "0.90 GB" in shown
    assert "library's" in shown
    shown = "\n".join(lines([measured("mlx-whisper", "micro", fitted=True)]))
    assert "understands no person" in shown
    assert "encoded at their own length (encoder_window) by: mlx-whisper micro." in shown


def test_rounds_that_differ_much_are_pointed_at() -> None:
    steady, noisy = measured("mlx-whisper", "base"), measured("whisper.cpp", "base", rounds_s=(10.0, 14.0))
    assert "something else used the machine (whisper.cpp base)." in "\n".join(lines([steady, noisy]))
    assert "something else" not in "\n".join(lines([steady]))


def test_what_was_not_measured_says_why() -> None:
    rows = [
        measured("mlx-whisper", "base"),
        Row("whisper.cpp", "base", Status.FAILED, note="The model could not be loaded."),
        Row("faster-whisper", "base", Status.NOT_RUN),
    ]
    shown = lines(rows)
    assert "base   whisper.cpp     failed" in shown
    assert "base   faster-whisper  not run" in shown
    assert "base on whisper.cpp: failed. The model could not be loaded." in shown


def test_quoted_figures_stand_beside_the_measured_ones_with_their_share_and_a_warning() -> None:
    rows = [measured("mlx-whisper", "base"), measured("mlx-whisper", "micro")]
    rows += quoted_rows(rows)
    shown = lines(rows, with_quoted=True)
    titles = next(line for line in shown if line.startswith("model"))
    assert titles.endswith("quoted (M4 Pro)  its memory  ratio")
    found = {tuple(line.split()[:2]): line.split() for line in shown}
    assert found["base", "mlx-whisper"][-4:] == ["18", "1.50", "GB", "1.11"]
    assert found["micro", "mlx-whisper"][-1] == "%", "nobody quotes it"
    assert found["tiny", "mlx-whisper"][2:] == ["not", "run", "27", "1.50", "GB"]
    said = {
        ("mlx-whisper", "tiny"): ("27", "1.50"),
        ("whisper.cpp", "tiny"): ("25", "0.80"),
        ("whisper.cpp", "base"): ("16", "0.80"),
        ("faster-whisper", "tiny"): ("15", "2.50"),
        ("faster-whisper", "base"): ("10", "2.50"),
        ("openai-whisper", "tiny"): ("8", "3.00"),
        ("openai-whisper", "base"): ("5", "3.00"),
    }
    assert {key: tuple(found[key[1], key[0]][-3:-1]) for key in said} == said
    assert (
        "faster-whisper is quoted as MPS, which CTranslate2, its library, does not have: on a Mac it runs on the CPU."
        in shown[-1]
    )
    assert "`whisperd bench --models tiny,base --pull`" in shown[-2]
    assert "quoted" not in "\n".join(lines(rows))


def test_json_has_what_the_table_has() -> None:
    rows = [measured("mlx-whisper", "base"), Row("whisper.cpp", "micro", Status.NOT_RUN)]
    data = json.loads(json.dumps(table.to_json({"schema": 1}, rows, with_quoted=True)))
    assert data["schema"] == 1
    first, second = data["rows"]
    assert first["figures"]["speed"] == 20.0
    assert first["figures"]["error_rate"] == 0.025
    assert first["quoted"] == {"speed": 18, "memory": 1_500_000_000}
    assert second["figures"] is None
    assert second["quoted"] is None
    assert "CTranslate2" in data["quoted_note"]
    assert "quoted" not in json.dumps(table.to_json({"schema": 1}, rows, with_quoted=False))

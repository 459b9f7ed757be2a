"""Word error rates: the server's answers against the same library called directly on the same files.

    python -m benchmarks.accuracy                                        micro, faster-whisper, all clips and ten
    minutes python -m benchmarks.accuracy --backend mlx-whisper --clips 20 --minutes 2
    python -m benchmarks.accuracy --model DIR --manifest M               your model and recordings

``--manifest`` is a JSON list of ``{"file", "language", "text"}`` beside its files. ``--minutes`` joins the English
ones to one recording.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from benchmarks.library import Library, folder_of
from benchmarks.server import machine, parser_of, serving
from tests.conftest import Clip, Recording, join_clips, word_error_rate

CLIPS = Path(__file__).parent.parent / "tests" / "data" / "audio" / "manifest.json"


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--manifest", type=Path, default=CLIPS)
    parser.add_argument("--clips", type=int, default=10_000, help="use only so many, evenly chosen")
    parser.add_argument("--minutes", type=float, default=10, help="length of the joined recording; 0 for none")
    options = parser.parse_args()

    rows = json.loads(options.manifest.read_text())
    step = max(1, -(-len(rows) // options.clips))
    parts = [_clip(options.manifest.parent, row) for row in rows]
    chosen: list[Clip | Recording] = list(parts[::step])
    with tempfile.TemporaryDirectory() as folder:
        if options.minutes:
            chosen.append(_joined(parts, options.minutes, Path(folder) / "joined.wav"))
        with serving("--backend", options.backend, "--model", options.model) as client:
            ours = [client.transcribe(each.path, language=_language(each)).json()["text"] for each in chosen]
        theirs = _by_the_library(options.backend, options.model, chosen)
    print(machine())
    print(f"{options.backend}, {options.model}: word error rate in %, and word errors between the two")
    groups = {"single": slice(0, len(parts[::step])), "joined": slice(len(parts[::step]), None)}
    for name, group in groups.items():
        references = [each.text for each in chosen[group]]
        if not references:
            continue
        seconds = sum(each.duration for each in chosen[group])
        ours_wer = 100 * word_error_rate(references, ours[group])
        theirs_wer = 100 * word_error_rate(references, theirs[group])
        between = 100 * word_error_rate(theirs[group], ours[group])
        print(f"  {name} ({len(references)}, {seconds:.0f} s): ", end="")
        print(f"whisperd {ours_wer:.2f}, library {theirs_wer:.2f}, between {between:.2f}")


def _clip(folder: Path, row: dict[str, str]) -> Clip:
    return Clip(folder / row["file"], row["language"], float(row["duration"]), row["text"])


def _language(each: Clip | Recording) -> str:
    return each.language if isinstance(each, Clip) else "en"


def _joined(parts: list[Clip], minutes: float, path: Path) -> Recording:
    english = [part for part in parts if part.language == "en"]
    wanted, taken = minutes * 60, list[Clip]()
    while wanted > 0:
        taken.append(english[len(taken) % len(english)])
        wanted -= taken[-1].duration + 0.45
    return join_clips(taken, path, gap_s=0.45)


def _by_the_library(backend: str, model: str, chosen: list[Clip | Recording]) -> list[str]:
    with Library(backend, folder_of(model, backend)) as library:
        return [library.transcribe(each.path, _language(each)).text for each in chosen]


if __name__ == "__main__":
    main()

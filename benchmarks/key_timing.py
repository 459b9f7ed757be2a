"""Whether the time to refuse a key says how much of it was right: wrong from the first byte on, or in the last alone.

    python -m benchmarks.key_timing                 200,000 refusals

Ends with 1 where the two differ by more than a hundredth, and by more than the same wrong key differs from itself.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from app import keys
from benchmarks.server import machine

#: Keys on the ring, the one that is guessed at among them.
_KEYS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "keys.json"
        secret = [keys.add(path, f"key{number}") for number in range(_KEYS)][_KEYS // 2].encode()
        ring = keys.Keyring(path)
        guesses = {
            "wrong from the first byte": bytes([secret[0] ^ 1]) + secret[1:],
            "wrong in the last byte": secret[:-1] + bytes([secret[-1] ^ 1]),
            "the same again": secret[:-1] + bytes([secret[-1] ^ 1]),
        }
        took: dict[str, list[int]] = {name: [] for name in guesses}
        order = list(guesses)
        for _ in range(options.trials // len(guesses)):
            random.shuffle(order)
            for name in order:
                started = time.perf_counter_ns()
                found = ring.find(guesses[name])
                took[name].append(time.perf_counter_ns() - started)
                assert found is None
    print(machine())
    medians = {name: statistics.median(each) for name, each in took.items()}
    for name, median in medians.items():
        print(f"  {name:26} {median / 1000:8.3f} us")
    first, last, again = medians.values()
    difference, noise = abs(last - first) / first, abs(last - again) / first
    print(f"  difference {100 * difference:.2f} %, of the same key {100 * noise:.2f} %")
    sys.exit(difference > max(0.01, noise))


if __name__ == "__main__":
    main()

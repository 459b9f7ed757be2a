"""The test suite as a service would run it: no environment but a short PATH, no network but loopback, umask 077.

python -m benchmarks.sealed                        row 27 of docs/reliability.md; as root on Linux
python -m benchmarks.sealed tests/faults           some tests
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: In a namespace without a network; loopback has to be brought up there.
_UNSHARE = ("unshare", "--net", "sh", "-c")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", default=["tests"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        pytest = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider"]
        pytest += ["--rootdir", str(ROOT), *(str(ROOT / test) for test in options.tests)]
        script = f"ip link set lo up && umask 077 && cd / && exec {shlex.join(pytest)} </dev/null"
        # PYTHONPATH is the tests' own need: some of them start others of themselves.
        environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": home, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([*_UNSHARE, script], env=environment, stdout=subprocess.PIPE, text=True, check=False)
    lines = done.stdout.splitlines()
    print("\n".join(line for line in lines if line.startswith(("FAILED", "ERROR"))))
    print(lines[-1] if lines else os.strerror(done.returncode))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())

# shellcheck shell=bash
# Sourced by the scripts beside it. `prepare run` or `prepare test` makes .venv and installs whisperd into it, or returns
# at once where that is done already.
#
# Rules: bash 3.2 (macOS) and Python >= 3.11 are all that is needed; uv is used where it is on PATH. torch is never
# installed: mlx-whisper names it as a dependency but runs without it, so it goes in alone, beside the mlx extra.

ROOT=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
STAMP=$VENV/.whisperd-installed
UV=$(command -v uv || true)
unset PYTHONHOME

say() { printf '%s\n' "$*" >&2; }

fail() {
  say "$*"
  exit 1
}

prepare() {
  local profile=$1 installed='' version='' digest='' where='' wanted
  if [ -n "${PYTHON:-}" ] && ! new_enough "$PYTHON"; then
    fail "PYTHON=$PYTHON is no Python 3.11 or newer."
  fi
  if [ -f "$STAMP" ]; then
    read -r installed version digest where <"$STAMP" || true
  fi
  if ! new_enough "$VENV/bin/python" || made_elsewhere "$where" || other_python "$version"; then
    make_venv
    installed='' version='' digest='' where=''
  fi
  # What scripts/test brought in serves scripts/demo as well, and stays when it is installed again.
  if [ "$installed" = test ]; then
    profile='test'
  fi
  wanted=$(fingerprint "$profile")
  if [ "$installed $version $digest $where" != "$wanted" ]; then
    check_machine
    rm -f "$STAMP"
    install "$profile"
    printf '%s\n' "$wanted" >"$STAMP"
  fi
}

# Whether $1 is a Python that runs (pyenv's shims exist without one) and is new enough.
new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Console scripts hold absolute paths, so an environment that moved with its checkout is made again.
made_elsewhere() {
  [ -n "$1" ] && [ "$1" != "$ROOT" ]
}

# Whether $PYTHON asks for another version than the environment has.
other_python() {
  [ -n "${PYTHON:-}" ] && [ -n "$1" ] &&
    [ "$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" != "$1" ]
}

# One line: what is installed, by which Python, from which versions, where.
fingerprint() {
  "$VENV/bin/python" - "$1" "$ROOT" <<'PY'
import hashlib
import pathlib
import sys

profile, root = sys.argv[1], pathlib.Path(sys.argv[2])
digest = hashlib.sha256()
for name in ("pyproject.toml", "constraints.txt", "scripts/_env.sh"):
    digest.update((root / name).read_bytes())
print(profile, "%d.%d" % sys.version_info[:2], digest.hexdigest(), root)
PY
}

make_venv() {
  local python
  python=$(find_python)
  rm -rf "$VENV"
  if [ -n "$UV" ]; then
    say "Making .venv with uv ..."
    # Without a fit Python here, uv fetches one.
    "$UV" venv --quiet --python "${python:-3.13}" "$VENV"
    return
  fi
  [ -n "$python" ] || fail "whisperd needs Python 3.11 or newer, and none was found. Install one, or name it: PYTHON=/path/to/python3 $0"
  "$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
    fail "$python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv"
  say "Making .venv with $("$python" --version) ..."
  "$python" -m venv "$VENV"
}

# Prints the Python to use, or nothing. One that can make environments is preferred to one that cannot.
find_python() {
  local candidate fallback=''
  if [ -n "${PYTHON:-}" ]; then
    printf '%s' "$PYTHON"
    return
  fi
  for candidate in python3.13 python3.12 python3.11 python3.14 python3; do
    if new_enough "$candidate"; then
      if [ -n "$UV" ] || "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        command -v "$candidate"
        return
      fi
      fallback=${fallback:-$(command -v "$candidate")}
    fi
  done
  printf '%s' "$fallback"
}

# Says at once what would otherwise come out as a compiler's error half-way through.
check_machine() {
  case "$(uname -s)/$(uname -m)" in
    Darwin/arm64)
      [ "$(sw_vers -productVersion | cut -d. -f1)" -ge 14 ] ||
        fail "whisperd needs macOS 14 or newer: MLX and PyAV have no wheels for older ones."
      ;;
    Darwin/*) fail "whisperd needs a Mac with Apple Silicon: onnxruntime has no wheels for Intel Macs, and MLX neither." ;;
    Linux/x86_64 | Linux/aarch64 | Linux/arm64) ;;
    *) say "whisperd is not tried on $(uname -s) $(uname -m); going on all the same." ;;
  esac
}

# Prints why MLX cannot run here, or nothing.
why_no_mlx() {
  "$VENV/bin/python" - <<'PY'
import os
import platform
import sys

machine = platform.machine()
if sys.platform == "linux":
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except ValueError:
        name = version = ""
    if name != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < (2, 35):
        print("MLX needs glibc 2.35 or newer, here is", version or "another C library")
    elif machine not in ("x86_64", "aarch64"):
        print("MLX has no wheels for", machine)
elif sys.platform != "darwin" or machine != "arm64":
    print("MLX needs Apple Silicon or Linux")
PY
}

install() {
  local reason extras='' mlx=no
  reason=$(why_no_mlx)
  if [ "$1" = test ]; then
    extras='[test,faster-whisper,whispercpp]'
    if [ -n "$reason" ]; then
      say "$reason: the tests that need it are skipped."
    else
      extras='[test,faster-whisper,whispercpp,mlx]' mlx=yes
    fi
  elif [ "$(uname -s)" = Darwin ]; then
    mlx=yes
  fi
  say "Installing whisperd$extras (first time: about a minute) ..."
  # setuptools first, so that building whisperd itself needs no version that constraints.txt does not name.
  packages setuptools
  packages --no-build-isolation -e ".$extras"
  if [ "$mlx" = yes ]; then
    packages --no-deps mlx-whisper
  fi
}

# pip install into .venv, by constraints.txt.
packages() (
  cd "$ROOT" || exit
  if [ -n "$UV" ]; then
    exec "$UV" pip install --quiet --python "$VENV/bin/python" --constraint constraints.txt "$@"
  fi
  # An environment made by uv holds no pip.
  "$VENV/bin/python" -m pip --version >/dev/null 2>&1 || "$VENV/bin/python" -m ensurepip >/dev/null
  exec "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --constraint constraints.txt "$@"
)

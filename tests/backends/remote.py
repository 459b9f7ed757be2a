"""A backend in a child: MLX on Linux is several times faster with another BLAS, which must be there from the start."""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing.connection import Connection, Pipe

from app.backends.base import Backend, LoadOptions, ModelInfo, StepResult, openblas_preload


class Remote(Backend):
    """The backend ``name``, in a child of its own. ``close`` ends the child."""

    def __init__(self, name: str) -> None:
        self._pipe, theirs = Pipe()
        preload = openblas_preload()
        environment = {**os.environ, **({"LD_PRELOAD": preload} if preload else {})}
        command = [sys.executable, "-m", "tests.backends.remote", name, str(theirs.fileno())]
        self._child = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()

    def load(self, model_path: str, options: LoadOptions) -> ModelInfo:
        return self._call("load", model_path, options)

    def transcribe(self, pcm, windows, options) -> StepResult:
        return self._call("transcribe", pcm, windows, options)

    def warm_up(self) -> None:
        self._call("warm_up")

    def close(self) -> None:
        self._pipe.close()
        self._child.wait(30)

    def _call(self, method, *arguments):
        self._pipe.send((method, arguments))
        result = self._pipe.recv()
        if isinstance(result, Exception):
            raise result
        return result


def serve(name: str, pipe: Connection) -> None:
    from app.backends import create

    backend = create(name)
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(getattr(backend, method)(*arguments))
        except Exception as error:  # noqa: BLE001 - the caller's to see
            pipe.send(error)


if __name__ == "__main__":
    serve(sys.argv[1], Connection(int(sys.argv[2])))

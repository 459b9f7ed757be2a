"""The rows of docs/reliability.md: what can go wrong, the figure to reach, and the commands that measure it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """``commands`` are words behind ``python -m``, with their environment before them; with none, ``why`` says why
    nothing was run.
    """

    number: int
    tested: str
    goal: str
    commands: tuple[str, ...] = ()
    why: str = ""


ROWS = (
    Row(
        1,
        "a corpus of odd and bad files, posted with claimed names and types",
        "each answered as it should be, none 5xx; one at a time p99 1 s, worst 5 s",
        ("pytest tests/hostile/test_corpus.py",),
    ),
    Row(
        2,
        "bombs among them: a few kB that claim or unfold to days, gigabytes, 65,535 channels; alone and 8 at once",
        "all 4xx; HTTP process +64 MB, decoders 450 MB at most",
        ("pytest tests/hostile/test_corpus.py",),
    ),
    Row(
        3,
        "playlists, SDP, DASH and the like that name sockets and a canary file, under strace",
        "no connection, no listening socket, no other file opened",
        ("pytest tests/hostile/test_no_doors.py",),
    ),
    Row(
        4,
        "mutated files through the decoder, mutated requests through the front door",
        "no exit, no hang over 30 s, no 5xx, at most 5 children replaced",
        ("pytest tests/hostile/test_fuzz.py", "tests.hostile.fuzz --files 100000"),
    ),
    Row(
        5,
        "decoders killed with a file in hand, 500 times",
        "once: the file is decoded by another; twice: 400; the next recording is heard 500 times",
        ("pytest tests/hostile/test_native_crashes.py", "tests.hostile.kill_decoders --times 500"),
    ),
    Row(
        6,
        "a recording of four hours",
        "HTTP process and decoder 200 MB each, +150 MB together; first window within 1 s",
        ("benchmarks.four_hours",),
    ),
    Row(
        7,
        "files damaged in their middle, chained, with changing rates",
        "95 % of the sound heard; a loss over 1 s is said",
        ("pytest tests/audio/test_decode.py",),
    ),
    Row(
        8,
        "500 posts at once, places for 8",
        "8 taken in, the others 429 with Retry-After before their body is read, p99 1 s; /health p99 100 ms; +30 MB",
        ("benchmarks.crowd --rows 8",),
    ),
    Row(
        9,
        "the event loop while a long recording is decoded and transcribed on all cores",
        "never blocked for 250 ms",
        ("benchmarks.crowd --rows 9",),
    ),
    Row(
        10,
        "300 clients that hang up while they wait",
        "job gone within 50 ms, the device never works for it",
        ("benchmarks.hangups --rows 10",),
    ),
    Row(
        11,
        "clients that hang up while their recording is transcribed, on each backend",
        "job gone within 50 ms (fake), device free after the window it is at, next text right 100 of 100",
        ("benchmarks.hangups --rows 11",),
    ),
    Row(
        12,
        "a step that never returns: in Python, in native code without and with the interpreter's lock, stopped",
        "504 at the step's deadline ± 1 s, worker replaced within 5 s and a load, other jobs end well",
        ("WHISPERD_TEST_KILLS=50 pytest tests/faults/test_lifetimes.py tests/faults/test_workers.py",),
    ),
    Row(
        13,
        "workers killed, aborted, out of memory, with figures that are none",
        "no server ends, no request is lost; a second death on the same recording is a 500 that is not retried",
        (
            "WHISPERD_TEST_KILLS=50 pytest tests/faults/test_lifetimes.py tests/faults/test_workers.py",
            "benchmarks.chaos --kills 200",
        ),
    ),
    Row(
        14,
        "MLX under 16 clients with loads, unloads and cancels, 300 requests",
        "all calls from one thread, no stream error",
        ("benchmarks.mlx_thread",),
    ),
    Row(
        15,
        "200 requests before the model is loaded; a model that comes and goes for 10 minutes",
        "one load; never two copies; +5 %; no error but the documented 503",
        ("benchmarks.crowd --rows 15",),
    ),
    Row(
        16,
        "half an hour of mixed load with a fault every few seconds",
        "every request answered and counted; 0.5 MB per 1,000 requests; descriptors, threads, files as before",
        ("benchmarks.soak",),
    ),
    Row(
        17,
        "300 slow connections of four kinds beside good requests",
        "closed by 12 s; good ones all answered, p99 +50 ms",
        ("pytest tests/api/test_connection.py", "benchmarks.rude"),
    ),
    Row(
        18,
        "uploads over the limit, announced and not, from curl, httpx and OpenAI's SDK",
        "413 seen 100 of 100, one attempt each; +20 MB",
        ("benchmarks.rude",),
    ),
    Row(
        19,
        "a full disk, a deleted spool, few descriptors, a read-only folder",
        "503 with Retry-After, never a traceback, recovers by itself",
        ("pytest tests/faults/test_storage.py",),
    ),
    Row(
        20,
        "the server killed with a recording in hand and started again, 50 times",
        "no file left, no orphan; ready within 2 s; files 0600 in folders 0700",
        ("WHISPERD_TEST_KILLS=50 pytest tests/faults/test_lifetimes.py tests/faults/test_workers.py",),
    ),
    Row(
        21,
        "SIGTERM while idle, while a job runs, while one waits, while one is uploaded",
        "exit 0 within 1 s, else 6 s; children gone; all answered",
        (
            "WHISPERD_TEST_KILLS=50 pytest tests/faults/test_lifetimes.py tests/faults/test_workers.py",
            "benchmarks.rude",
        ),
    ),
    Row(
        22,
        "bombs of headers, parts and chunks; requests that can be read in two ways",
        "4xx; 1 s of processor, +4 MB each; none taken for two",
        ("pytest tests/api/test_connection.py", "benchmarks.rude"),
    ),
    Row(
        23,
        "Host, Origin and Sec-Fetch of pages that mean ill, and of apps that do not",
        "each as it should be; no CORS header for a web origin unless configured",
        ("pytest tests/api/test_origins.py tests/api/test_cors.py",),
    ),
    Row(
        24,
        "every route with no key, wrong, odd and huge ones; the time that a refusal takes",
        "401 on all but the open ones; no byte of a key can be timed",
        ("pytest tests/api/test_auth.py tests/api/test_named_keys.py", "benchmarks.key_timing"),
    ),
    Row(
        25,
        "silence, noise and tones of 0.1 to 600 s on each backend",
        "no text in digital silence, none in 99 % of the others; no time beyond the end; no looping text",
        ("benchmarks.hearing --rows 25",),
    ),
    Row(
        26,
        "2,000 requests with other options one after the other, on each backend",
        "each answered as after a start",
        ("benchmarks.hearing --rows 26",),
    ),
    Row(
        27,
        "the test suite as a service would run it: no environment, no network but loopback, umask 077",
        "all green",
        ("benchmarks.sealed",),
    ),
    Row(
        28,
        "a configuration that can never start, under a supervisor that always restarts",
        "parked after 5 starts with the reason in status.json; at most 20 log lines a start",
        ("pytest tests/faults/test_parking.py",),
    ),
    Row(
        29,
        "all processes stopped as by a sleep; clocks that jump",
        "no false 504, /health well 1 s after, no negative duration",
        ("WHISPERD_TEST_SLEEP_S=120 pytest tests/faults/test_clocks.py",),
    ),
    Row(
        30,
        "the N-th call of 13 kinds fails, N = 1 and up: files, pipes, processes, the jobs' database, our own code",
        "a clean answer, the next request right, no place in the queue lost",
        ("pytest tests/faults/test_nth_fault.py",),
    ),
    Row(
        31,
        "100,000 requests with hostile names and prompts",
        "20 MB of log at most; no control character, no word, no key in it",
        ("pytest tests/e2e/test_privacy.py", "benchmarks.logs"),
    ),
)

#: What no Linux machine shows, with the script that its owner can run.
ON_A_MAC = "Metal running out of memory and its watchdog, ProcessType, jetsam, real sleep and wake, the Neural Engine"

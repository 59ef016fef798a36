"""Runs checks in their order, and tells of each on a line of its own. The exit code is 1 where one failed."""

import sys
import time
import traceback


class Failure(Exception):
    """What a check expected and did not find."""


def expect(what, got, wanted):
    if got != wanted:
        raise Failure(f"{what}: got {got!r}, wanted {wanted!r}")


def contains(what, text, *words):
    for word in words:
        if word not in text:
            raise Failure(f"{what}: {word!r} is not in:\n{text}")


def until(what, look, seconds=60):
    """Looks again and again; what is true in the end is given back."""
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > end:
            raise Failure(f"{what}: not within {seconds} s; last: {found!r}")
        time.sleep(0.1)


def run(client, checks, *args):
    """The words after `--only` in the command line pick checks by a part of their names."""
    only = sys.argv[sys.argv.index("--only") + 1 :] if "--only" in sys.argv else []
    failed = 0
    for check in checks:
        name = check.__name__.replace("_", " ")
        if only and not any(word in name for word in only):
            continue
        start = time.monotonic()
        try:
            check(*args)
            print(f"{client} {name}: ok ({time.monotonic() - start:.1f} s)", flush=True)
        except Exception as e:  # A check may fail in any way; the others still run.
            failed += 1
            where = traceback.extract_tb(e.__traceback__)
            line = next((f.lineno for f in reversed(where) if "checks.py" not in f.filename), 0)
            print(f"{client} {name}: FAILED in line {line}: {type(e).__name__}: {e}", flush=True)
    sys.exit(1 if failed else 0)

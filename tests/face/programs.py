"""A user's program with an attached daemon, as a process of its own, for tests that end it in rough ways."""

from __future__ import annotations

import sys

from tests.face import loops


def main() -> None:
    """Serve, say where, and train until a line comes in; "leave" closes the daemon before the end, others do not."""
    subject, trained = loops.face(), loops.model()
    optimizer = loops.ADAMW(trained)
    serving = subject.serve(name=sys.argv[1], listen="127.0.0.1:0")
    loops.train(subject, trained, optimizer, loops.batches(3))
    print(serving.pid, flush=True)
    if sys.stdin.readline() == "raise\n":
        raise RuntimeError("a bug of the program")


if __name__ == "__main__":
    main()

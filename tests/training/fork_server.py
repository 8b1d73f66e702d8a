"""Runs Python code in processes of their own, without the seconds that importing the library takes each time.

Started as a script, it reads one JSON request a line: ``{"code", "output", "cwd", "environment"}`` forks a process
that runs the code and is answered with its number; ``{"wait": number}`` is answered with its exit code, as
``subprocess`` gives it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback

import bmrl.evaluation.comparison
import bmrl.training.run  # noqa: F401


def run(request: dict) -> int:
    """Return the exit code of the code."""
    handle = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.chdir(request["cwd"])
    os.environ.update(request["environment"])
    try:
        exec(compile(request["code"], "code", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                code = run(request)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(answer, flush=True)


if __name__ == "__main__":
    main()

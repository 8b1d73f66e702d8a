from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bmrl._memory import MemoryBudget


def test_threads_never_take_more_than_the_total():
    budget = MemoryBudget(10)
    lock = threading.Lock()
    used, highest, most_at_once = 0, 0, 0
    running = 0

    def work(amount: int) -> None:
        nonlocal used, highest, running, most_at_once
        with budget.taken(amount):
            with lock:
                used, running = used + min(amount, 10), running + 1
                highest, most_at_once = max(highest, used), max(most_at_once, running)
            time.sleep(0.002)
            with lock:
                used, running = used - min(amount, 10), running - 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [1, 9, 4, 25, 3, 3, 3, 1, 10, 2, 0, 8] * 5))
    assert 0 < highest <= 10
    assert most_at_once > 1  # small ones do run side by side


def test_an_error_gives_back_what_was_taken():
    budget = MemoryBudget(10)
    for _ in range(3):
        with pytest.raises(KeyError), budget.taken(7):
            raise KeyError
    with budget.taken(10):
        pass


def test_a_forked_child_does_not_wait_for_its_parents_threads():
    budget = MemoryBudget(10)
    with budget.taken(10):
        child = os.fork()
        if child == 0:
            with budget.taken(10):
                os._exit(7)
        for _ in range(200):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                break
            time.sleep(0.05)
        else:
            os.kill(child, 9)
    assert os.waitstatus_to_exitcode(status) == 7

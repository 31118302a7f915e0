"""What must not stop or break the process around it: signals, threads, forks, memory."""

import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

import recmill


def run(code: str, **arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300, **arguments
    )


LONG = """
import numpy as np, scipy.sparse as sp, recmill
rng = np.random.default_rng(0)
n = 4_000_000
rows, columns = rng.integers(0, 40_000, n), rng.integers(0, 5_000, n)
likes = sp.csr_matrix((np.ones(n, np.float32), (rows, columns)), shape=(40_000, 5_000))
model = recmill.AlternatingLeastSquares(factors=128, iterations=1000, random_state=0, device="cpu", use_cg=False)
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are those of Unix")
def test_ctrl_c_ends_a_long_fit_and_leaves_the_model_usable():
    code = LONG + textwrap.dedent(
        """
        import os, signal, threading
        def interrupt(iteration=0, seconds=0, loss=None):
            os.kill(os.getpid(), signal.SIGINT)
        threading.Timer(0.5, interrupt).start()
        try:
            model.fit(likes, False)
        except KeyboardInterrupt:
            print("interrupted")
        try:
            model.recommend(0)
        except recmill.NotFittedError:
            print("not fitted")
        small = likes[:50]
        model.set_params(iterations=2, factors=4).fit(small, False)
        print("fitted", model.recommend(0, small[[0]], N=2)[0].shape)
        import sys
        sys.stdout.flush()
        os._exit(0)
        """
    )
    done = run(code)
    assert done.stdout.splitlines() == ["interrupted", "not fitted", "fitted (2,)"], done.stderr


def test_other_threads_run_while_a_model_is_fitted(likes):
    """Had fit held the interpreter, the other thread could not count before fit is over."""
    counted, done = [], threading.Event()

    def count():
        while not done.is_set():
            counted.append(1)
            time.sleep(0)

    model = recmill.AlternatingLeastSquares(factors=64, iterations=200, random_state=0, device="cpu", use_cg=False)
    thread = threading.Thread(target=count)
    seen = []
    thread.start()
    try:
        model.fit(likes, False, lambda *_: seen.append(len(counted)))
    finally:
        done.set()
        thread.join()
    assert seen[-1] > seen[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
def test_a_child_of_fork_answers_and_fits():
    done = run(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore")
        import numpy as np, scipy.sparse as sp, recmill
        likes = sp.csr_matrix((np.random.default_rng(0).random((300, 40)) < 0.2).astype(np.float32))
        model = recmill.AlternatingLeastSquares(factors=8, iterations=3, random_state=0, device="cpu")
        model.fit(likes, False)
        expected = model.recommend(np.arange(300), likes)[0]
        one = model.recommend(7, likes[[7]])[0]
        child = os.fork()
        if child == 0:
            same = np.array_equal(model.recommend(7, likes[[7]])[0], one)
            same &= np.array_equal(model.recommend(np.arange(300), likes)[0], expected)
            model.fit(likes, False)
            os._exit(0 if same and np.array_equal(model.recommend(np.arange(300), likes)[0], expected) else 1)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if sys.version_info >= (3, 9) else 1)
        """
    )
    assert done.returncode == 0, done.stderr


def test_an_interpreter_that_closes_in_the_middle_does_not_crash():
    done = run(
        LONG
        + textwrap.dedent(
            """
            import threading, time
            threading.Thread(target=lambda: model.fit(likes, False), daemon=True).start()
            time.sleep(0.5)
            print("leaving")
            """
        )
    )
    assert (done.returncode, done.stdout) == (0, "leaving\n"), (done.returncode, done.stderr[-500:])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_fit_makes_no_copy_of_the_matrix_that_it_does_not_need():
    """Beside the caller's matrix: the same by columns while it learns, which afterwards makes room for the model's own copy."""
    done = run(
        """
        import re, numpy as np, scipy.sparse as sp, recmill
        def peak():
            return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
        n_users, each = 200_000, 100
        columns = (np.arange(each) * 97 + np.arange(n_users)[:, None]) % 10_000
        columns = np.sort(columns, axis=1).astype(np.int32).ravel()
        likes = sp.csr_matrix(
            (np.ones(len(columns), np.float32), columns, np.arange(0, len(columns) + 1, each, dtype=np.int32)),
            shape=(n_users, 10_000),
        )
        likes.has_canonical_format
        model = recmill.AlternatingLeastSquares(factors=4, iterations=1, random_state=0, device="cpu")
        matrix = likes.data.nbytes + likes.indices.nbytes
        open("/proc/self/clear_refs", "w").write("5")
        before = peak()
        model.fit(likes, False)
        print((peak() - before) / matrix)
        """
    )
    assert done.returncode == 0, done.stderr
    assert 0.5 < float(done.stdout) < 1.75, done.stdout


def test_one_thread_and_many_give_the_same(likes):
    params = {"factors": 8, "iterations": 4, "random_state": 1, "device": "cpu"}
    one = recmill.AlternatingLeastSquares(num_threads=1, **params).fit(likes, False)
    three = recmill.AlternatingLeastSquares(num_threads=3, **params).fit(likes, False)
    np.testing.assert_array_equal(one.user_factors, three.user_factors)
    np.testing.assert_array_equal(one.recommend(np.arange(50))[0], three.recommend(np.arange(50))[0])


def test_losses_go_to_the_log(likes, caplog):
    import logging

    model = recmill.AlternatingLeastSquares(
        factors=4, iterations=2, random_state=0, device="cpu", calculate_training_loss=True
    )
    with caplog.at_level(logging.INFO, logger="recmill"):
        model.fit(likes, False)
    assert [record.getMessage().split(",")[0] for record in caplog.records] == ["als: iteration 1", "als: iteration 2"]

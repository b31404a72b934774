"""Ctrl-C before the imports of a command are through."""

import os
import signal

from utils import begin


def test_one_word_instead_of_a_traceback(capfd):
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        begin.quiet()
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert capfd.readouterr().err == "interrupted\n"


def test_it_is_an_exception_again_once_main_runs():
    before = signal.getsignal(signal.SIGINT)
    try:
        for handler, between in ((signal.default_int_handler, begin._leave), (signal.SIG_IGN, signal.SIG_IGN)):
            signal.signal(signal.SIGINT, handler)
            begin.quiet()
            assert signal.getsignal(signal.SIGINT) is between
            begin.usual()
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)

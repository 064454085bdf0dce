import logging
import subprocess
import sys
import warnings

import pytest

from onnxpress.quiet import hushed, quiet


def test_everything_goes_to_the_log(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    noisy = logging.getLogger("noisy")
    handler = logging.StreamHandler()
    noisy.addHandler(handler)
    noisy.propagate = False
    stream = handler.stream
    try:
        with caplog.at_level("INFO"), quiet():
            print("printed")
            print("error", file=sys.stderr)
            warnings.warn("careful", UserWarning, stacklevel=1)
            noisy.warning("logged")
    finally:
        noisy.removeHandler(handler)
    assert capfd.readouterr() == ("", "")
    assert all(word in caplog.text for word in ("printed", "error", "careful", "logged"))
    assert handler.stream is stream


def test_nothing_is_lost_when_the_block_fails(caplog: pytest.LogCaptureFixture) -> None:
    stdout = sys.stdout
    with caplog.at_level("INFO"), pytest.raises(RuntimeError), quiet():
        print("before")
        raise RuntimeError
    assert "before" in caplog.text
    assert sys.stdout is stdout


@pytest.mark.parametrize("shown", [False, True])
def test_what_libraries_say_is_shown_only_when_asked_for(shown: bool) -> None:
    code = (
        "import logging, threading, warnings\n"
        "from onnxpress.quiet import hushed\n"
        f"with hushed(shown={shown}):\n"
        "    warnings.warn('warned', UserWarning)\n"
        "    logging.getLogger('library').warning('logged')\n"
        "    thread = threading.Thread(target=lambda: 1 / 0)\n"
        "    thread.start()\n"
        "    thread.join()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = [word in done.stdout + done.stderr for word in ("warned", "logged", "ZeroDivisionError")]
    assert said == [shown] * 3


def test_warnings_that_are_errors_stay_errors() -> None:
    with pytest.raises(UserWarning), hushed(shown=False):
        warnings.warn("careful", UserWarning, stacklevel=1)

import logging
import sys
import warnings

import pytest

from onnxpress.quiet import quiet


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

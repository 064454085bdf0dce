"""The process: ``compress``, and ``python -m onnxpress`` for where that is the old Unix tool."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until the command listens there is nothing to tidy up, or to trace

from onnxpress.cli import main

if __name__ == "__main__":
    main()

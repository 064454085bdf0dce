"""``python -m onnxpress``, for where ``compress`` is the old Unix tool."""

from onnxpress.cli import main

main()

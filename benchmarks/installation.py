"""What the documented installations take: seconds of a first install and megabytes on disk.

    python benchmarks/installation.py

Each goes into a new virtual environment without pip's cache, and must start: `compress doctor` is run. Where the index
that pip uses has PyTorch's CPU builds itself, --extra-index '' leaves the second index out.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTORCH_CPU = "https://download.pytorch.org/whl/cpu"


def main() -> None:
    """Install each way and print a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--extra-index", default=PYTORCH_CPU)
    index = parser.parse_args().extra_index
    extra = ["--extra-index-url", index] if index else []
    rows = {
        "default": ["-c", "constraints.txt", "."],
        "CPU only": ["--no-deps", "-r", "requirements-cpu.txt", "."],
        "with PyTorch for CPUs": ["-c", "constraints.txt", *extra, ".[torch]"],
    }
    print(f"{'installation':<24} {'seconds':>8} {'MB':>6}")
    for name, words in rows.items():
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            binaries = Path(folder) / "bin"
            before, begin = size(Path(folder)), time.monotonic()
            subprocess.run([binaries / "pip", "install", "--quiet", "--no-cache-dir", *words], check=True, cwd=ROOT)
            seconds = time.monotonic() - begin
            subprocess.run([binaries / "compress", "doctor", "--quiet"], check=True, cwd=folder)
            print(f"{name:<24} {seconds:>8.0f} {(size(Path(folder)) - before) / 1e6:>6.0f}")


def size(folder: Path) -> int:
    """Return the bytes of all files of a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


if __name__ == "__main__":
    main()

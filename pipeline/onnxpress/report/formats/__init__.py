"""The forms of a report, one file each: every module has ``render(report) -> str``."""

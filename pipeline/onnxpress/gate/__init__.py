"""Release gate: a report and a policy give checks, and the checks give an exit code."""

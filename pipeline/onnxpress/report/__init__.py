"""The report of a run: one JSON file that holds every measurement, and the forms it is shown in."""

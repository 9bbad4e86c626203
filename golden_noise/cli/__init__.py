"""The command line: composing, checking and running jobs."""

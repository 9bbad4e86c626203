"""What runs report, to loggers and to their folders."""

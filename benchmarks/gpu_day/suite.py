"""(a) The tests that differ on CUDA: `pytest -m gpu`, test by test."""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.gpu_day.day import Day
from benchmarks.gpu_day.results import Row

TESTS = Path(__file__).parents[2] / "tests/gpu"
OUTCOMES = ("passed", "failed", "skipped")


class Reporter:
    """Counts tests as they end, and names those that fail."""

    def __init__(self, day: Day):
        self.day, self.counts = day, Counter(dict.fromkeys(OUTCOMES, 0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return  # a fixture that did what it should
        self.counts[report.outcome] += 1
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = crash.message if crash else str(report.longrepr)
            self.day.add(Row(report.nodeid, None, note=f"failed: {' '.join(reason.split())[:300]}"))
        self.tell()

    def tell(self) -> None:
        for outcome in OUTCOMES:
            self.day.add(Row(f"tests {outcome}", self.counts[outcome]))
        met = self.counts["failed"] == 0 and self.counts["passed"] > 0
        self.day.goal("tests failed", self.counts["failed"], "", "0", met)


def run(day: Day) -> None:
    reporter = Reporter(day)
    code = pytest.main(["-m", "gpu", "-v", "--timeout=80", "-p", "no:cacheprovider", str(TESTS)], plugins=[reporter])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {code!r}: nothing was tested")
    reporter.tell()

"""What a model has to keep on labelled cases, and whether a candidate keeps it.

    gates = gates.parse(["dice"], max_drop=["0.01"], max_case_drop=["0.1"])
    cases = Cases.open(path, inputs, results, minimum=gates[0].limits.min_cases)
    with Judge(gates, cases, results, baseline=reference.run) as judge:
        report = judge.judge(session.run)

Everything that is missing fails: a case that crashed, a value that is not a number, too few cases.
"""

from __future__ import annotations

from edgekit.gates.judge import Judge, Run, judge
from edgekit.gates.options import Budget, Gate, parse

__all__ = ["Budget", "Gate", "Judge", "Run", "judge", "parse"]

"""Reads the report of the Autobahn testsuite; fails unless every case is as it should be."""
import collections
import json
import sys

# The suite itself calls these cases informational: every behaviour is allowed there.
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}
# All of 6 is about text that is not UTF-8: it must be refused as soon as it is known to be bad.
STRICT = ("1.", "2.", "3.", "4.", "5.", "6.", "9.", "10.", "12.", "13.")

(cases,) = json.load(open(sys.argv[1])).values()
counts = collections.Counter()
bad = []
for name, case in sorted(cases.items(), key=lambda item: [int(n) for n in item[0].split(".")]):
    verdicts = case["behavior"], case["behaviorClose"]
    counts[verdicts[0]] += 1
    allowed = {"OK"} if name.startswith(STRICT) else GOOD
    if verdicts[0] not in allowed or verdicts[1] not in GOOD:
        bad.append(f"{name}: {verdicts[0]}, closing {verdicts[1]}")
print(f"{len(cases)} cases:", ", ".join(f"{n} {verdict}" for verdict, n in counts.items()))
print(*bad, sep="\n", end="\n" if bad else "")
sys.exit(bool(bad) or not cases)

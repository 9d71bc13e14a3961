"""`python -m tests.chaos --seed 7 --minutes 10`: faults of every kind for so long, and then the count.

Prints the seed first; the same seed brings the same faults at the same times. Exit status 1 when a promise was broken.
"""

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import Plan, run
from tests.e2e.harness.cluster import Cluster


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="of an earlier run, to repeat it")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--subscribers", type=int, default=200)
    parser.add_argument("--writers", type=int, default=8)
    arguments = parser.parse_args()
    plan = Plan(arguments.seed, arguments.minutes * 60, arguments.subscribers, arguments.writers)
    print(f"seed {plan.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="taskhub-chaos-"))
    try:
        outcome = asyncio.run(run(plan, Cluster(directory), lambda line: print(line, flush=True)))
    except AssertionError as broken:
        print(f"{broken}\nBROKEN with seed {plan.seed}; what the servers printed is in {directory}")
        return 1
    for line in outcome.complaints:
        print(f"a server printed: {line}")
    print(
        f"held: {outcome.faults} faults, {outcome.writes} writes ({outcome.repeated} repeated),"
        f" {outcome.events} events, {outcome.deliveries} deliveries over {outcome.connections} connections,"
        f" {outcome.notices} notices"
    )
    for why, count in outcome.refusals.items():
        print(f"{count:6}  {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

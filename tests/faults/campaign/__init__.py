"""Does every accepted session get exactly one agent, whatever process dies?

`python -m tests.faults.campaign` runs a whole stack, sends people into rooms, kills processes at
random (but the same ones again for the same seed), and judges by evidence from outside the
product: what the clients were answered, what the agents themselves have logged, and what LiveKit
lists. Nothing of `dispatcher`, `web` or `worker_agent` is imported here.

plan.py what is to happen · rounds.py one stack, one round · visitors.py the people · faults.py the
kills · watching.py LiveKit's list at 4 Hz · agent.py the agents' own log · journal.py how it is
written down · evidence.py how it is read · oracle.py what it proves · report.py for people
"""

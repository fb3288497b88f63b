"""The fault campaign: does an agent answer everyone who was promised one, whatever process dies?

`python -m tests.faults.campaign` runs a whole stack, sends people into rooms, kills processes at
random (but the same ones again for the same seed), and judges by evidence from outside the
product: what the clients were answered over HTTP and in the room, what the agents themselves have
logged, and what LiveKit lists. Nothing of `dispatcher`, `web` or `worker_agent` is imported here.

plan.py who comes, which agent, which faults · deployment.py two tenants, and a gateway before
LiveKit · rounds.py one stack, one round · visitors.py the people · talking.py their words ·
faults.py what is done to processes · trouble.py servers that answer wrongly, a neighbour that asks
for too much · watching.py LiveKit's list at 4 Hz · processes.py which processes live · agent.py the
agent program, with its own log · journal.py how it is written down · evidence.py how it is read ·
liveness.py which agent lived when · occupancy.py who was in a room, and served, when · recovery.py
how soon a person is served again · oracle.py what it proves · isolation.py what one does to
everything else · findings.py what the rules give · report.py for people
"""

"""Does a running deployment do what it is for? `celery -A dispatcher dispatch selftest`.

From outside, as a client: by HTTP with one of its keys, and as a participant in its own rooms.
Nothing of Usher's own is asked but its HTTP interface (and its counters, where they may be read).
"""

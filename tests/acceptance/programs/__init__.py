"""livekit-agents programs as others write them, each with Usher's two lines; see each one's head.

Every one runs by itself: `AGENT=... EXECUTOR=thread python FILE start`, with REDIS_URL and
LIVEKIT_* set. Without the two lines it is a plain livekit-agents program.
"""

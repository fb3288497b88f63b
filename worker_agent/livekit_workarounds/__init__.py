"""Uses of private names of livekit-agents and livekit-rtc, and nothing else.

Each module says which release it is written for and where the names stand in its source, what
happens with a release that has other names (it goes on without, and the log says so), and when the
module can be removed. No other module of Usher uses such a name.
"""

"""Private names of livekit-agents and livekit-rtc, each with its source, a guard and an end."""

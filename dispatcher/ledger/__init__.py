"""The ledger: every Redis key and every Lua script, and nothing else."""

"""Every Redis key and every script, and nothing else."""

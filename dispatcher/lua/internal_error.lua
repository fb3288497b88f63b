-- Counts a failure that nothing has expected. KEYS: metrics of the ledger. ARGV: the work that failed.
return redis.call('HINCRBY', KEYS[1], 'internal_errors:' .. ARGV[1], 1)

-- Counts an unexpected failure.
local metrics, work = KEYS[1], ARGV[1]
return redis.call('HINCRBY', metrics, 'internal_errors:' .. work, 1)

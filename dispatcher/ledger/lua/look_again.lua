-- Has a worker look into the room of a record with an agent in so many ms, whatever its agent
-- reports meanwhile; an earlier look stays due.
-- KEYS: record, leases. ARGV: id, in_ms. Returns 1, or 0 for a record without a lease.
local now = clock()
local due = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or nil)
if not due then return 0 end
local at = now + tonumber(ARGV[2])
if due > now then at = math.min(at, due) end
at = string.format('%.0f', at)
redis.call('HSET', KEYS[1], 'look_at_ms', at)
redis.call('ZADD', KEYS[2], 'XX', at, ARGV[1])
return 1

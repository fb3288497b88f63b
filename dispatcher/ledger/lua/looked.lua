-- Notes that a worker has looked into the room of a record and seen its agent: the record is due
-- again when the agent falls silent, or when a look was requested during this one.
-- KEYS: record, leases. ARGV: id, look_at_ms as it was before the look (0: none).
-- Returns 1, or 0 where another look has been requested.
local record = redis.call('HMGET', KEYS[1], 'look_at_ms', 'alive_till_ms')
if (record[1] or '0') ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], 'look_at_ms')
if record[2] then redis.call('ZADD', KEYS[2], 'XX', record[2], ARGV[1]) end
return 1

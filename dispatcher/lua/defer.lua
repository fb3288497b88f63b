-- Moves a record's due time, if it is on the list at all. KEYS: due. ARGV: id, due_in_ms.
local now = clock()
return redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])

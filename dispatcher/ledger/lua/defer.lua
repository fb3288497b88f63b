-- Moves a record's due time, if it is on the list at all.
local due = KEYS[1]
local id, due_in_ms = ARGV[1], tonumber(ARGV[2])
local now = clock()
return redis.call('ZADD', due, 'XX', string.format('%.0f', now + due_in_ms), id)

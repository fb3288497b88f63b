-- Nothing of a cancelled dispatch is left in its room, so nobody need look again. One that has been
-- sent again meanwhile is left alone. KEYS: record, due. ARGV: id, generation. Returns 1 or 0.
local record = redis.call('HMGET', KEYS[1], 'state', 'generation')
if record[1] ~= 'cancelled' or record[2] ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], 'clearing')
redis.call('ZREM', KEYS[2], ARGV[1])
return 1

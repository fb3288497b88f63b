-- Takes a cancelled dispatch off the due list, because nothing of it is left in its room. One that
-- has been sent again meanwhile is left alone. Returns 1 or 0.
local record, due = unpack(KEYS)
local id, generation = ARGV[1], ARGV[2]

local is = redis.call('HMGET', record, 'state', 'generation')
if is[1] ~= 'cancelled' or is[2] ~= generation then return 0 end
redis.call('HDEL', record, 'clearing')
redis.call('ZREM', due, id)
return 1

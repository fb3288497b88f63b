-- Notes for which clients events are wanted, by a worker that knows them; those whom no worker has
-- named for so long are forgotten. KEYS: clients that want events. ARGV: after how many s, their ids.
local now = clock()
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - 1000 * ARGV[1]))
return #ARGV - 1

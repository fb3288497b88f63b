-- Notes the clients for which a worker wants events; clients that no worker has named for so long
-- are forgotten. Returns how many it has named.
local notified, kept_s = KEYS[1], tonumber(ARGV[1])
local CLIENTS = 2  -- their ids, from here on

local now = clock()
for i = CLIENTS, #ARGV do redis.call('ZADD', notified, string.format('%.0f', now), ARGV[i]) end
redis.call('ZREMRANGEBYSCORE', notified, '-inf', string.format('(%.0f', now - 1000 * kept_s))
return #ARGV - 1

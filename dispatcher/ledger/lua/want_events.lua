-- Notes the clients for which a worker wants events; clients that no worker has named for as long
-- as an event is kept are forgotten. Returns how many it has named.
local notified = KEYS[1]
local client_ids = ARGV

local now = clock()
for _, id in ipairs(client_ids) do
  redis.call('ZADD', notified, string.format('%.0f', now), id)
end
redis.call('ZREMRANGEBYSCORE', notified, '-inf',
  string.format('(%.0f', now - 1000 * EVENT_RETENTION_S))
return #client_ids

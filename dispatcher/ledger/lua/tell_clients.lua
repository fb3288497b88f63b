-- Keeps where clients' LiveKit servers are. Returns how many there are.
local clients, ttl_ms = KEYS[1], tonumber(ARGV[1])
local REPORTS = 2  -- client id, report (JSON), client id, report, ... from here on

local expires = clock() + ttl_ms
for i = REPORTS, #ARGV, 2 do
  redis.call('HSET', clients, ARGV[i], string.format('%.0f', expires) .. ' ' .. ARGV[i + 1])
end
return redis.call('HLEN', clients)

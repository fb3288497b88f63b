-- Where clients' LiveKit servers are. KEYS: a hash of reports. ARGV: time to live (ms), client id,
-- report (JSON), client id, report, ... Returns how many there are.
local expires = clock() + tonumber(ARGV[1])
for i = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], string.format('%.0f', expires) .. ' ' .. ARGV[i + 1])
end
return redis.call('HLEN', KEYS[1])

-- KEYS: a hash of reports. ARGV: name, report (JSON), time to live (ms; 0 takes it away).
if ARGV[3] == '0' then
  return redis.call('HDEL', KEYS[1], ARGV[1])
end
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
return redis.call('HSET', KEYS[1], ARGV[1],
  string.format('%.0f', now + tonumber(ARGV[3])) .. ' ' .. ARGV[2])

-- KEYS: a hash of reports, [waiting]. ARGV: name, report (JSON), time to live (ms; 0 takes it away),
-- [channel to tell when dispatches wait, message]. Returns Redis's clock (ms).
local now = clock()
if ARGV[3] == '0' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  return now
end
if KEYS[2] and ARGV[4] ~= '' and redis.call('ZCARD', KEYS[2]) > 0 then
  redis.call('PUBLISH', ARGV[4], ARGV[5])
end
redis.call('HSET', KEYS[1], ARGV[1],
  string.format('%.0f', now + tonumber(ARGV[3])) .. ' ' .. ARGV[2])
return now

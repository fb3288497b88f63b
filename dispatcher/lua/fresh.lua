-- KEYS: a hash of reports. Returns the reports that are still fresh and forgets the others.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local fresh = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local expires, report = string.match(all[i + 1], '^(%d+) (.*)$')
  if tonumber(expires) > now then
    fresh[#fresh + 1] = report
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return fresh

-- The reports of a hash of reports that are still fresh; the others are forgotten. Part of other
-- scripts.
local function fresh_reports(key, now)
  local fresh = {}
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local expires, report = string.match(all[i + 1], '^(%d+) (.*)$')
    if tonumber(expires) > now then
      fresh[#fresh + 1] = report
    else
      redis.pcall('HDEL', key, all[i])  -- a Redis that takes no writes can still be read
    end
  end
  return fresh
end

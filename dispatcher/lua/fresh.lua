-- KEYS: a hash of reports. Returns the reports that are still fresh and forgets the others.
local t = redis.call('TIME')
return fresh_reports(KEYS[1], tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000))

-- What has happened to a dispatch since its first so many events. KEYS: record, timeline.
-- ARGV: how many are known. Returns {state (empty: no such record), how many there are, events}; all
-- that are kept where more are known than there are (Redis has lost data, and the record is new).
local record = redis.call('HMGET', KEYS[1], 'state', 'timeline_dropped')
if not record[1] then return {'', 0, {}} end
local dropped, known = tonumber(record[2] or '0'), tonumber(ARGV[1])
local count = dropped + redis.call('LLEN', KEYS[2])
if known > count then known = 0 end
return {record[1], count, redis.call('LRANGE', KEYS[2], math.max(0, known - dropped), -1)}

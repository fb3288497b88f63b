-- Reads the events of a dispatch after the first so many.
-- Returns {state (empty: no such record), number of events, events}; all kept events where the
-- caller knows more than there are (Redis has lost data, and the record is new).
local record, timeline = unpack(KEYS)
local known = tonumber(ARGV[1])

local is = redis.call('HMGET', record, 'state', 'timeline_dropped')
if not is[1] then return {'', 0, {}} end
local dropped = tonumber(is[2] or '0')
local count = dropped + redis.call('LLEN', timeline)
if known > count then known = 0 end
return {is[1], count, redis.call('LRANGE', timeline, math.max(0, known - dropped), -1)}

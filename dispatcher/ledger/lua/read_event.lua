-- Returns {the time (ms), the event's fields}.
local event = KEYS[1]
return {clock(), redis.call('HGETALL', event)}

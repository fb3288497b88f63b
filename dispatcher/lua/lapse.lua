-- An agent that had to leave has its lease end now, so that somebody looks at once whether people
-- are left. KEYS: record, leases. ARGV: id, generation, job id. Returns 1, or 0 when another job or
-- generation serves the dispatch.
local record = redis.call('HMGET', KEYS[1], 'generation', 'job_id')
if record[1] ~= ARGV[2] or record[2] ~= ARGV[3] then return 0 end
local t = redis.call('TIME')
local now = string.format('%.0f', tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000))
redis.call('HSET', KEYS[1], 'alive_till_ms', now)
redis.call('ZADD', KEYS[2], 'XX', now, ARGV[1])
return 1

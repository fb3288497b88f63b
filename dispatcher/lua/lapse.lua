-- An agent of a session is lost, says its own job or its agent server: its lease ends now, and a worker
-- is woken to look at once whether people are left.
-- KEYS: record, leases, queue. ARGV: id, generation, job id, what has become of it, message for a
--   worker, after how many ms the sweeper wakes one if that message is lost.
-- Returns 1, or 0 when another job or generation serves the dispatch, or none.
local record = redis.call('HMGET', KEYS[1], 'generation', 'job_id', 'state')
local open = record[3] == 'joined' or record[3] == 'leaving'
if not open or record[1] ~= ARGV[2] or record[2] ~= ARGV[3] then return 0 end
local now = clock()
redis.call('HSET', KEYS[1], 'alive_till_ms', string.format('%.0f', now))
-- The first to tell knows best: a job tells what it has seen, its agent server that it is gone.
redis.call('HSETNX', KEYS[1], 'loss', ARGV[4])
redis.call('ZADD', KEYS[2], 'XX', string.format('%.0f', now + tonumber(ARGV[6])), ARGV[1])
redis.call('LPUSH', KEYS[3], ARGV[5])
return 1

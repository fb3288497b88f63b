-- Detects that Redis has lost its data: the mark, written once, is lost with it.
-- Returns {mark, 1 if it differs from the one seen before}. Each loss is counted once.
local birth, metrics = unpack(KEYS)
local seen, fresh = ARGV[1], ARGV[2]  -- the mark as last seen (empty: never), one to write

local mark = redis.call('GET', birth)
if not mark then
  mark = fresh
  redis.call('SET', birth, mark)
end
if seen == '' or seen == mark then return {mark, 0} end
if redis.call('HSETNX', metrics, 'data_lost_after:' .. seen, mark) == 1 then
  redis.call('HINCRBY', metrics, 'data_losses', 1)
end
return {mark, 1}

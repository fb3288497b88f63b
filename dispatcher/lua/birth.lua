-- Has Redis lost what it held? A mark that is written once tells: with the data, the mark is gone.
-- KEYS: mark, metrics. ARGV: the mark as last seen (empty: never), a fresh one.
-- Returns {mark, 1 if it is another one than before}. Each loss is counted once.
local mark = redis.call('GET', KEYS[1])
if not mark then
  mark = ARGV[2]
  redis.call('SET', KEYS[1], mark)
end
if ARGV[1] == '' or ARGV[1] == mark then return {mark, 0} end
if redis.call('HSETNX', KEYS[2], 'data_lost_after:' .. ARGV[1], mark) == 1 then
  redis.call('HINCRBY', KEYS[2], 'data_losses', 1)
end
return {mark, 1}

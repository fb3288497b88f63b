-- Takes an id off every list that a record can be on.
local id = ARGV[1]
for _, list in ipairs(KEYS) do redis.call('ZREM', list, id) end
return 1

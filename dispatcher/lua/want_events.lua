-- KEYS: clients that want events. ARGV: their ids.
redis.call('DEL', KEYS[1])
for _, client in ipairs(ARGV) do redis.call('SADD', KEYS[1], client) end
return #ARGV

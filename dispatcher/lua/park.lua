-- KEYS: parked, then every list that a record can be on. ARGV: id, reason.
for i = 2, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
return redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])

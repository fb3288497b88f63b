-- Wakes workers, in this order. KEYS: queue. ARGV: messages.
redis.call('LPUSH', KEYS[1], unpack(ARGV))

-- Carries out one command of Redis on one key.
local key = KEYS[1]
local command = ARGV[1]  -- its other arguments follow
return redis.call(command, key, unpack(ARGV, 2))

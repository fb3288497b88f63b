-- Keeps what Celery would send for each task, for `celery_message.lua`.
-- Returns how many fields are new.
local messages = KEYS[1]
local replace = ARGV[1] == '1'  -- else only missing fields are written
local FIELDS = 2                -- field, value, field, value, ... from here on

local written = 0
for i = FIELDS, #ARGV, 2 do
  written = written + redis.call(replace and 'HSET' or 'HSETNX', messages, ARGV[i], ARGV[i + 1])
end
return written

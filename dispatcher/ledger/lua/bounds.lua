-- Bounds the size of a record, however often it is sent again: a reader reads all of it, and Redis
-- does nothing else meanwhile. Part of other scripts.

-- Attempts to keep: the 200 events of a timeline cover about as many.
local KEPT_ATTEMPTS = 50
-- Notes of things counted once; each contains a name of LiveKit's or of a job.
local KEPT_NOTES = 100
local AT_ONCE = 1000  -- arguments of one call of Redis

local function delete_fields(key, fields)
  for i = 1, #fields, AT_ONCE do
    redis.call('HDEL', key, unpack(fields, i, math.min(i + AT_ONCE - 1, #fields)))
  end
end

-- `latest` is the generation that begins. The record keeps the number of dropped attempts.
local function forget_the_oldest(record, attempts, latest)
  if redis.call('HLEN', attempts) > KEPT_ATTEMPTS then
    local old, seen, dropped = {}, {}, 0
    for _, field in ipairs(redis.call('HKEYS', attempts)) do
      local number = tonumber(string.match(field, '^%d+'))
      if number <= latest - KEPT_ATTEMPTS then
        old[#old + 1] = field
        if not seen[number] then dropped = dropped + 1 end
        seen[number] = true
      end
    end
    delete_fields(attempts, old)
    if dropped > 0 then redis.call('HINCRBY', record, 'attempts_dropped', dropped) end
  end
  if redis.call('HLEN', record) > KEPT_NOTES then
    local notes = {}
    for _, field in ipairs(redis.call('HKEYS', record)) do
      if string.sub(field, 1, 8) == 'counted:' then notes[#notes + 1] = field end
    end
    delete_fields(record, notes)
  end
end

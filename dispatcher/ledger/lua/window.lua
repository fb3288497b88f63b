-- Returns how many may be on their way at once to agents after LiveKit has dropped jobs; nil when
-- it has dropped none lately. Part of other scripts.
-- Redis expires a key by its own clock: if that has gone back, the key would stay for as much
-- longer.
local function window_of(key)
  local window = tonumber(redis.call('GET', key) or nil)
  if window and redis.call('PTTL', key) > WINDOW_MS then redis.call('PEXPIRE', key, WINDOW_MS) end
  return window
end

-- Takes the jobs that Usher itself has given to one agent server. Returns those that are not too old.
local jobs = KEYS[1]

local given = redis.call('LRANGE', jobs, 0, -1)
if #given == 0 then return {} end
redis.call('DEL', jobs)
local now, fresh = clock(), {}
for _, each in ipairs(given) do
  local good_until, job = string.match(each, '^(%d+) (.*)$')
  if tonumber(good_until) > now then fresh[#fresh + 1] = job end
end
return fresh

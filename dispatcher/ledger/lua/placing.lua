-- Gives a job to an agent server. Part of other scripts.

-- Returns the report of an agent server and its expiry; nil where there is none.
local function report_of(reports, server_id)
  local expires, report = string.match(redis.call('HGET', reports, server_id) or '', '^(%d+) (.*)$')
  if report then return cjson.decode(report), tonumber(expires) end
end

-- Count a job in the report of its agent server, from now on and not only from the next report on.
local function take_slot(reports, server_id)
  local report, expires = report_of(reports, server_id)
  if not report then return end
  report.used_slots = report.used_slots + 1
  for _, left in ipairs({'takes', 'starts'}) do
    if type(report[left]) == 'number' then report[left] = math.max(0, report[left] - 1) end
  end
  redis.call('HSET', reports, server_id,
    string.format('%.0f', expires) .. ' ' .. cjson.encode(report))
end

local function free_slots(report)
  if report.draining or report.cannot_start or not report.registered then return 0 end
  local free = report.slots - report.used_slots
  for _, left in ipairs({'takes', 'starts'}) do
    if type(report[left]) == 'number' then free = math.min(free, report[left]) end
  end
  return free
end

-- Returns the one with the most free slots of these agent servers; nil where none has any.
local function with_most_room(reports, server_ids, now)
  local best, most = nil, 0
  for _, server_id in ipairs(server_ids) do
    local report, expires = report_of(reports, server_id)
    if report and expires > now and free_slots(report) > most then
      best, most = server_id, free_slots(report)
    end
  end
  return best
end

-- Put a job into the list of its agent server, and wake it.
local function hand_over(server_id, place, now)
  local jobs = JOBS_PREFIX .. server_id
  redis.call('RPUSH', jobs, string.format('%.0f', now + place.good_for_ms) .. ' ' .. place.job)
  redis.call('EXPIRE', jobs, 10)
  redis.call('PUBLISH', jobs, 'job')
end

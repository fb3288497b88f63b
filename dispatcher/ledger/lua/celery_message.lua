-- Builds Celery's message for a task from a worker's template (`ledger/celery_messages.py`). Part
-- of other scripts.

local function json_text(text) return string.sub(cjson.encode(text), 2, -2) end

-- Replace the names in angle brackets by their values.
local function filled(template, values) return (string.gsub(template, '<([%l_]+)>', values)) end

-- `wake` is a `Wake`. Returns nil where Redis has no template yet, because it has
-- just been emptied: the caller then makes the record due at once for the sweeper.
local function celery_message(wake)
  local kept = redis.call('HMGET', MESSAGES, wake.task, wake.task .. ':body')
  local message, body = kept[1], kept[2]
  if not message or not body then return nil end
  body = filled(body, {dispatch_id = json_text(wake.dispatch_id), room = json_text(wake.room)})
  local shown = string.gsub(wake.room, "'", "\\'")  -- as Celery quotes text in `kwargsrepr`
  return filled(message, {
    body = json_text(body),
    task_id = json_text(wake.task_id),
    dispatch_id = json_text(wake.dispatch_id),
    room = json_text(shown),
  })
end

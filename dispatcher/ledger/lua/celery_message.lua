-- Celery's message for a task, from what a worker has kept of it (`ledger/celery_messages.py`). Part of other
-- scripts; MESSAGES, the key of the templates, stands before it.

local function json_text(text) return string.sub(cjson.encode(text), 2, -2) end

-- Put the values in the places that have their names in angle brackets.
local function filled(template, values) return (string.gsub(template, '<([%l_]+)>', values)) end

-- `wake` is what `Wake.order` gives. Returns nil where no worker has said yet what Celery sends,
-- because Redis has just been emptied: the caller then has the sweeper come at once.
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

-- Return the header and the activation of one timer, read together. A timer that no sweep has anything to do for is dropped.
-- It was found by what it was then: a worker may have claimed the activation since, so the deadline is looked at again. What
-- cannot be read is returned as it is where a due one is asked for: the caller sets it aside.
-- KEYS: header, activations, timers. ARGV: the timer's member, its path, 'due' or 'stranded'. Returns {header, activation}
-- or nothing.

local text, doc
local readable, is_live, is_wanted = pcall(function()
  text, doc = redis.call('GET', KEYS[1]), redis.call('HGET', KEYS[2], ARGV[2])
  if not (text and doc) then return false, false end
  local header, activation = as_header(cjson.decode(text)), as_activation(cjson.decode(doc), ARGV[2])
  if not is_timer_live(header, activation) then return false, false end
  local clock = redis.call('TIME')
  local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
  if ARGV[3] == 'due' then return true, is_due(activation, now) end
  return true, is_stranded(header, activation, now)
end)
if not readable then
  if ARGV[3] == 'due' then return {text or '', doc or ''} end
  return {}
end
if is_wanted then return {text, doc} end
if not is_live then redis.call('ZREM', KEYS[3], ARGV[1]) end
return {}

-- Return the header and the activation of one timer, read together. A timer that no sweep has anything to do for is dropped.
-- It was found by what it was then: a worker may have claimed the activation since, so the deadline is looked at again.
-- KEYS: header, activations, timers. ARGV: the timer's member, its path, 'due' or 'stranded'. Returns {header, activation}
-- or nothing.

local text, doc = redis.call('GET', KEYS[1]), redis.call('HGET', KEYS[2], ARGV[2])
if text and doc then
  local header, activation = as_header(cjson.decode(text)), as_activation(cjson.decode(doc), ARGV[2])
  if is_timer_live(header, activation) then
    local clock = redis.call('TIME')
    local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
    if ARGV[3] == 'due' and is_due(activation, now) then return {text, doc} end
    if ARGV[3] == 'stranded' and is_stranded(header, activation, now) then return {text, doc} end
    return {}
  end
end
redis.call('ZREM', KEYS[3], ARGV[1])
return {}

-- Return the header and the activation of one timer, read together. A timer that no sweep has anything to do for is dropped.
-- KEYS: header, activations, timers. ARGV: the timer's member, its path. Returns {header, activation} or nothing.

local text, doc = redis.call('GET', KEYS[1]), redis.call('HGET', KEYS[2], ARGV[2])
if text and doc and is_timer_live(as_header(cjson.decode(text)), as_activation(cjson.decode(doc), ARGV[2])) then
  return {text, doc}
end
redis.call('ZREM', KEYS[3], ARGV[1])
return {}

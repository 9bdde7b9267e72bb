-- The header and the activation of one due entry, read together; an entry that means nothing any more is dropped. What
-- cannot be read is answered as it is: the caller sets it aside.
-- KEYS: header, activations, due. ARGV: the entry, its path. Answers {header, activation} or nothing.

local text, doc
local _, live = pcall(function()
  text, doc = redis.call('GET', KEYS[1]), redis.call('HGET', KEYS[2], ARGV[2])
  return text and doc and is_timer_live(as_header(cjson.decode(text)), as_activation(cjson.decode(doc), ARGV[2]))
end)
if live then return {text or '', doc or ''} end -- an error is no nothing either
redis.call('ZREM', KEYS[3], ARGV[1])
return {}

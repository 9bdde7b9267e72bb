-- Return the headers and the activations of timers of one shard, each pair read together. A timer that no sweep has anything
-- to do for is dropped. It was found by what it was then: a worker may have claimed the activation since, so the deadline is
-- looked at again. What cannot be read is returned as it is where due ones are asked for: the caller sets it aside.
-- KEYS: timers, then header and activations of each. ARGV: 'due' or 'stranded', then member and path of each. Returns for
-- each {header, activation} or nothing.

local wanted = ARGV[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function read(header_key, activations_key, member, path)
  local text, doc
  local readable, is_live, is_wanted = pcall(function()
    text, doc = redis.call('GET', header_key), redis.call('HGET', activations_key, path)
    if not (text and doc) then return false, false end
    local header, activation = as_header(cjson.decode(text)), as_activation(cjson.decode(doc), path)
    if not is_timer_live(header, activation) then return false, false end
    if wanted == 'due' then return true, is_due(activation, now) end
    return true, is_stranded(header, activation, now)
  end)
  if not readable then
    if wanted == 'due' then return {text or '', doc or ''} end
    return {}
  end
  if is_wanted then return {text, doc} end
  if not is_live then redis.call('ZREM', KEYS[1], member) end
  return {}
end

local found = {}
for place = 1, (#KEYS - 1) / 2 do
  found[place] = read(KEYS[2 * place], KEYS[2 * place + 1], ARGV[2 * place], ARGV[2 * place + 1])
end
return found

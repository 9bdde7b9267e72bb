-- Take or keep the right to sweep a namespace. Returns 0 where another holds it, else the ms since the last sweep, -1 where
-- there was none. A request that is sent again (same `id`) gets the first reply: the gap before it must not be lost.
-- KEYS: sweep. ARGV: holder, lease, id, ms to remember the last sweep.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local right = redis.call('HMGET', KEYS[1], 'holder', 'until', 'last', 'id', 'answer')
if right[4] == ARGV[3] then return tonumber(right[5]) end
if right[1] and right[1] ~= '' and right[1] ~= ARGV[1] and tonumber(right[2]) > now then return 0 end
local since = right[3] and math.max(1, now - tonumber(right[3])) or -1
local stop = string.format('%d', now + tonumber(ARGV[2]))
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'until', stop, 'last', string.format('%d', now), 'id', ARGV[3],
  'answer', string.format('%d', since))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return since

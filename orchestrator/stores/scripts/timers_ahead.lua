-- Return a page of one lane of a shard's timers whose deadlines are to come, the farthest first.
-- KEYS: timers. ARGV: namespace, how many ms from now, offset, size of the page, where the lane begins. Returns how many were read, and the members
-- that belong to the namespace.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[5])
local mine, high, low = ARGV[1] .. '\31', string.format('%d', now + tonumber(ARGV[2])), '(' .. string.format('%d', now)
local page = redis.call('ZREVRANGEBYSCORE', KEYS[1], high, low, 'LIMIT', ARGV[3], ARGV[4])
local found = {#page}
for _, member in ipairs(page) do
  if string.sub(member, 1, #mine) == mine then found[#found + 1] = member end
end
return found

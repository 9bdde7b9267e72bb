-- Return the most overdue timers of one shard that belong to a namespace.
-- KEYS: timers. ARGV: namespace, limit. Returns members and deadlines by turns.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local mine, limit, found, offset = ARGV[1] .. '\31', tonumber(ARGV[2]), {}, 0
while true do
  local page = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'WITHSCORES', 'LIMIT', offset, 200)
  for place = 1, #page, 2 do
    if string.sub(page[place], 1, #mine) == mine then
      found[#found + 1] = page[place]
      found[#found + 1] = page[place + 1]
      if #found >= 2 * limit then return found end
    end
  end
  if #page < 400 then return found end
  offset = offset + 200
end

-- The entries of one lane of a shard that are due and belong to a namespace, most overdue first or newest first.
-- KEYS: due. ARGV: namespace, limit, where the lane begins, 1 for newest first. Answers members and moments by turns.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local mine, limit, found, offset = ARGV[1] .. '\31', tonumber(ARGV[2]), {}, 0
local lane, newest = tonumber(ARGV[3]), ARGV[4] == '1'
local low, high = string.format('%d', lane), string.format('%d', lane + now)
while true do
  local page
  if newest then
    page = redis.call('ZREVRANGEBYSCORE', KEYS[1], high, low, 'WITHSCORES', 'LIMIT', offset, 200)
  else
    page = redis.call('ZRANGEBYSCORE', KEYS[1], low, high, 'WITHSCORES', 'LIMIT', offset, 200)
  end
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

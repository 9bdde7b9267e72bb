-- Return the due timers of a shard that belong to a namespace, lane by lane, most overdue first or newest first.
-- KEYS: timers. ARGV: namespace, limit, 1 for newest first, then where each lane begins. Returns for each lane members and
-- places by turns.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local mine, limit, newest = ARGV[1] .. '\31', tonumber(ARGV[2]), ARGV[3] == '1'

local function find(lane)
  local found, offset = {}, 0
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
end

local lanes = {}
for place = 4, #ARGV do lanes[#lanes + 1] = find(tonumber(ARGV[place])) end
return lanes

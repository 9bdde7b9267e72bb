-- Have a timer fall due again later, if it is due.
-- KEYS: timers. ARGV: the timer's member, ms until then, the width of a lane.

local place = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '')
if not place then return 0 end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local moment = place % tonumber(ARGV[3])
if moment > now then return 0 end
redis.call('ZADD', KEYS[1], place - moment + now + tonumber(ARGV[2]), ARGV[1])
return 1

-- Take or keep the right to sweep a namespace. Answers nothing where another holds it, else {ms for which somebody has looked
-- without a pause, ms by which moments from before the clock went back are ahead}.
-- KEYS: tick. ARGV: holder, lease, pause, ms to remember it.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local fields = {'holder', 'until', 'last', 'steady_since', 'ahead'}
local held, right = redis.call('HMGET', KEYS[1], unpack(fields)), {}
for place, name in ipairs(fields) do right[name] = name == 'holder' and (held[place] or '') or tonumber(held[place] or 0) end
local grant, noted = take_sweep_right(right, ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), now)
if noted then
  local words = {}
  for _, name in ipairs(fields) do
    words[#words + 1] = name
    words[#words + 1] = name == 'holder' and noted[name] or string.format('%d', noted[name])
  end
  redis.call('HSET', KEYS[1], unpack(words))
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return grant or {}

-- Take or keep the right to sweep a namespace. Returns nothing where another holds it, else {ms for which schedulers have asked
-- without a pause, ms by which moments from before the clock went back are ahead}.
-- KEYS: sweep. ARGV: holder, lease, pause, ms to remember it.

local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local fields, right = {'holder', 'until', 'last', 'steady_since', 'ahead'}, {}
for place, text in ipairs(redis.call('HMGET', KEYS[1], unpack(fields))) do
  local name = fields[place]
  if name == 'holder' then right[name] = text or '' else right[name] = tonumber(text or 0) end
end
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

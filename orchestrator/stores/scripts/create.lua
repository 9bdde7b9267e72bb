-- Insert a pending run, or return what is stored under its id.
-- KEYS: header, index. ARGV: the header's document.

local stored = redis.call('GET', KEYS[1])
if stored then return stored end
local clock = redis.call('TIME')
local header = as_header(cjson.decode(ARGV[1]))
header.created_at = clock[1] * 1000 + math.floor(clock[2] / 1000)
header.updated_at = header.created_at
local text = cjson.encode(header)
redis.call('SET', KEYS[1], text)

for _, member in ipairs(index_members(header, false)) do redis.call('ZADD', KEYS[2], 0, member) end
return text

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

local function part(value)
  return #value .. ':' .. value .. ':' -- string.format would end it at a NUL
end

local tail = string.format('%015d:', header.created_at) .. header.run_id
local workflow, status, resource = part(header.workflow_id), part(header.status), header.resource_id
redis.call('ZADD', KEYS[2], 0, 'a' .. tail, 0, 'w' .. workflow .. tail, 0, 's' .. status .. tail,
  0, 'b' .. workflow .. status .. tail)
if resource ~= '' then redis.call('ZADD', KEYS[2], 0, 'r' .. part(resource) .. tail) end
return text

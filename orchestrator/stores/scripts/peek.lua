-- The header and the record of one due entry, read together; an entry that means nothing any more is dropped.
-- KEYS: header, records, due. ARGV: the entry, its path. Answers {header, record} or nothing.

local text, doc = redis.call('GET', KEYS[1]), redis.call('HGET', KEYS[2], ARGV[2])

-- As `core.recovery.worth_keeping` says.
local function is_worth_keeping()
  if not text or not doc then return false end
  local header = cjson.decode(text)
  if header.status == 'running' then return not header.closed or ARGV[2] == '' end
  return header.status == 'suspended' and cjson.decode(doc).status == 'waiting'
end

if is_worth_keeping() then return {text, doc} end
redis.call('ZREM', KEYS[3], ARGV[1])
return {}

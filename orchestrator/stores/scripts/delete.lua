-- Remove a run and all that belongs to it, if `may_delete` of orchestrator/rules/apply.py allows it.
-- KEYS: header, activations, values, state, context, events, timers, awaiting, mailboxes, settled, index, requests, request
-- moments. ARGV: run id, the moment at which it must have been created, the one before which it must have been written last
-- ('' for any), then the statuses in which it may go ('*' allows every status). Returns 1 where something was removed.

local text = redis.call('GET', KEYS[1])
if not text then return 0 end
local header = as_header(cjson.decode(text))
local status = header.status
local allowed = ARGV[4] == '*'
for place = 4, #ARGV do allowed = allowed or ARGV[place] == status end
allowed = allowed and (ARGV[2] == '' or header.created_at == tonumber(ARGV[2]))
allowed = allowed and (ARGV[3] == '' or header.updated_at < tonumber(ARGV[3]))
if not allowed then return 0 end

local function part(value)
  return string.format('%d:%s:', #value, value)
end

local paths, mine = redis.call('HKEYS', KEYS[2]), header.namespace .. '\31' .. ARGV[1] .. '\31'
for from = 1, #paths, 4000 do
  local members = {}
  for place = from, math.min(from + 3999, #paths) do members[#members + 1] = mine .. paths[place] end
  redis.call('ZREM', KEYS[7], unpack(members))
end
local tail = string.format('%015d:%s', header.created_at, ARGV[1])
local workflow, in_status = part(header.workflow_id), part(status)
redis.call('ZREM', KEYS[11], 'a' .. tail, 'w' .. workflow .. tail, 's' .. in_status .. tail,
  'b' .. workflow .. in_status .. tail, 'r' .. part(header.resource_id) .. tail)
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[8], KEYS[9], KEYS[10],
  KEYS[12], KEYS[13])
return 1

-- Remove a run and all that belongs to it, if it may be (see `may_delete`).
-- KEYS: header, activations, values, state, context, events, due, held, mail, rests, index, requests, request moments. ARGV: run id, when it has to have
-- been created, before when last written ('' for any), then the states ('*' allows every status). Answers 1 where something was removed.

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
local workflow, state = part(header.workflow_id), part(status)
redis.call('ZREM', KEYS[11], 'a' .. tail, 'w' .. workflow .. tail, 's' .. state .. tail, 'b' .. workflow .. state .. tail,
  'r' .. part(header.resource_id) .. tail)
redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[8], KEYS[9], KEYS[10], KEYS[12], KEYS[13])
return 1

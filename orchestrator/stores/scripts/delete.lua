-- Remove a run and all that belongs to it, if `may_delete` of orchestrator/rules/commands.py allows it.
-- KEYS: header, activations, values, state, context, events, timers, awaiting, mailboxes, settled, index, requests, request
-- moments. ARGV: run id, the moment at which it must have been created, the one before which it must have been written last
-- ('' for any), then the statuses in which it may go ('*' allows every status). Returns 1 where something was removed.

local text = redis.call('GET', KEYS[1])
if not text then return 0 end
local readable, header = pcall(function() return as_header(cjson.decode(text)) end)
local status = readable and header.status or 'unreadable'
local allowed = ARGV[4] == '*'
for place = 4, #ARGV do allowed = allowed or ARGV[place] == status end
allowed = allowed and (ARGV[2] == '' or (readable and header.created_at == tonumber(ARGV[2])))
allowed = allowed and (ARGV[3] == '' or (readable and header.updated_at < tonumber(ARGV[3])))
if not allowed then return 0 end

local function part(value)
  return #value .. ':' .. value .. ':' -- string.format would end it at a NUL
end

local function unlink()
  redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[8], KEYS[9], KEYS[10],
    KEYS[12], KEYS[13])
  return 1
end

-- Without a header nothing tells where its members are: all of the shard's are looked through.
local function remove(key, ending)
  local cursor = '0'
  repeat
    local page = redis.call('ZSCAN', key, cursor, 'COUNT', 1000)
    cursor = page[1]
    for place = 1, #page[2], 2 do
      if ending(page[2][place]) then redis.call('ZREM', key, page[2][place]) end
    end
  until cursor == '0'
end

if not readable then
  local tail, within = ':' .. ARGV[1], '\31' .. ARGV[1] .. '\31'
  remove(KEYS[7], function(member) return string.find(member, within, 1, true) ~= nil end)
  remove(KEYS[11], function(member)
    return string.sub(member, -#tail) == tail and string.find(string.sub(member, 1, -#tail - 1), '%d%d%d%d%d%d%d%d%d%d%d%d%d%d%d$') ~= nil
  end)
  return unlink()
end

local paths, mine = redis.call('HKEYS', KEYS[2]), header.namespace .. '\31' .. ARGV[1] .. '\31'
for from = 1, #paths, 4000 do
  local members = {}
  for place = from, math.min(from + 3999, #paths) do members[#members + 1] = mine .. paths[place] end
  redis.call('ZREM', KEYS[7], unpack(members))
end
local tail = string.format('%015d:', header.created_at) .. ARGV[1]
local workflow, in_status = part(header.workflow_id), part(status)
redis.call('ZREM', KEYS[11], 'a' .. tail, 'w' .. workflow .. tail, 's' .. in_status .. tail,
  'b' .. workflow .. in_status .. tail, 'r' .. part(header.resource_id) .. tail)
return unlink()

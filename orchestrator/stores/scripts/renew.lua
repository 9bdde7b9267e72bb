-- Push the leases of one run's claims on. A lease that is over but has not been taken is renewed.
-- KEYS: header, activations, timers. ARGV: run id, lease, then path and token of each claim.
-- Returns a reason ('' is held) for each.

local clock = redis.call('TIME')
local deadline = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[2])
local text = redis.call('GET', KEYS[1])

-- What cannot be read is lost, and the others are renewed.
local function read(doc)
  local readable, found = pcall(cjson.decode, doc)
  return readable and type(found) == 'table' and found or nil
end

local known = text and read(text)
local header = known and as_header(known)

local function renew(path, token)
  if not header then return 'unknown' end
  local doc = redis.call('HGET', KEYS[2], path)
  local found = doc and read(doc)
  local activation = found and as_activation(found, path)
  local refusal = lease_refusal(header, activation, path, token)
  if refusal then return refusal end
  activation.deadline, activation.lease = deadline, tonumber(ARGV[2])
  redis.call('HSET', KEYS[2], path, cjson.encode(activation))
  if has_timer(header, activation) then
    redis.call('ZADD', KEYS[3], place_of(activation), header.namespace .. '\31' .. ARGV[1] .. '\31' .. path)
  end
  return ''
end

local reasons = {}
for place = 3, #ARGV, 2 do reasons[#reasons + 1] = renew(ARGV[place], ARGV[place + 1]) end
return reasons

-- Compare the guards of a change and write it: all or nothing. A repeat gets the first reply.
-- ARGV: run id, the change as JSON (orchestrator/stores/redis_wire.py says how), then the texts that are not decoded here:
-- ids of values that go, values by id, state and context by key, keys that go, events; `change.n` has the number of words of each.
-- Returns {'', header, reply as JSON[, activation, values, state, context]} or {reason[, header]}.

local change
local mailbox -- of the name in the change: the beginning of its members, its first and its last entry

-- The reply as JSON: [[path, seq, route, delay] …], the path that was claimed, the token that claimed it; then, if a caller
-- asked or some are left out, the settle count for a caller (null for a worker), and how many dispatches are left out.
local function encode_reply(most)
  local token = claimed and activations[claimed].lease_token or ''
  if #dispatches == 0 and token == '' and change.by_lease then return '' end
  local left, kept = math.max(0, #dispatches - most), dispatches
  if #kept > most then
    kept = {}
    for place = 1, most do kept[place] = dispatches[place] end
  end
  -- An empty table would become `{}`: Lua cannot tell an empty list from an empty object.
  local list, more = #kept > 0 and cjson.encode(kept) or '[]', ''
  if not change.by_lease or left > 0 then
    more = string.format(',%s,%d', change.by_lease and 'null' or string.format('%d', header.settle_count), left)
  end
  return '[' .. list .. ',' .. (claimed and cjson.encode(claimed) or 'null') .. ',' .. cjson.encode(token) .. more .. ']'
end

-- The reply of the change when it was applied. A claim that it made is in it while nobody else has taken the activation.
local function repeat_reply(text)
  if text == RULES.undone then return {'ended', header_text} end
  local reply = {'', header_text, text}
  if text == '' then return reply end
  local first = cjson.decode(text)
  if first[2] ~= cjson.null then
    local activation = find(first[2])
    local is_held = activation and activation.status == 'running' and activation.lease_token == first[3]
    if is_held then return package(reply, first[2]) end
  end
  return reply
end

local function contains(list, value)
  for _, one in ipairs(list) do
    if one == value then return true end
  end
  return false
end

-- A resume comes into a closed run: it would take the settling away, after which nothing else follows there.
local function is_too_late()
  if not header.closed or header.status ~= 'running' then return false end
  for _, expect in ipairs(change.expect or {}) do
    if expect[1] ~= '' and not is_report(expect[1]) then return true end
  end
  return false
end

local function check_guards()
  local by = change.by
  if change.by_lease then
    local activation = find(by[1])
    -- The answer of a commit may get lost. Its token has ended here by a commit, and by no other: this is a repeat.
    if activation and activation.last_lease_token == (by[4] or by[2]) then return repeat_reply(activation.last_reply) end
    local refusal = lease_refusal(header, activation, by[1], by[2])
    if refusal then return {refusal, header_text} end
    -- Flushes come one after the other: a lower number is a repeat.
    if by[3] > 0 and by[3] <= activation.flush_seq then return {'', header_text, ''} end
  else
    local id, statuses, generation, settle_count, commits = by[1], by[2], by[3], by[4], by[5]
    if id ~= '' and header.last_request_id == id then return repeat_reply(header.last_reply) end
    local remembered = id ~= '' and redis.call('HGET', KEYS[12], id)
    if remembered then return repeat_reply(remembered) end
    local fits = contains(statuses, header.status)
      and (generation == cjson.null or generation == header.generation)
      and (settle_count == cjson.null or settle_count == header.settle_count)
    if not fits then return {'ended', header_text} end
    if commits ~= cjson.null and commits ~= header.commits then return {'moved', header_text} end
    if id ~= '' and is_too_late() then return {'ended', header_text} end
  end
  for _, expect in ipairs(change.expect or {}) do
    local activation = find(expect[1])
    if not activation or activation.status ~= expect[2] or activation.seq ~= expect[3] then
      return {'moved', header_text}
    end
    if expect[4] and activation.deadline ~= expect[4] then return {'moved', header_text} end
  end
  return nil
end

local function load_mailbox()
  local name = change.mailbox[1]
  local start = #name .. ':' .. name .. ':'
  local low, high = '[' .. start, '(' .. start .. '@'
  local first = redis.call('ZRANGEBYLEX', KEYS[9], low, high, 'LIMIT', 0, 1)[1]
  local last = first and redis.call('ZREVRANGEBYLEX', KEYS[9], high, low, 'LIMIT', 0, 1)[1]
  mailbox = {
    start = start, first = first and string.sub(first, #start + 1) or '', last = last and string.sub(last, #start + 1) or '',
  }
end

local function is_waiter(entry)
  return string.sub(entry, 1, 1) == RULES.waiter
end

-- The number of an event's entry, the bytes of the events up to it, and its own; zeros where there is none.
local function numbers_of(entry)
  local number, total, size = string.match(entry, '^(%d+):(%d+):(%d+):')
  return tonumber(number or 0), tonumber(total or 0), tonumber(size or 0)
end

-- The reference reading is orchestrator/rules/mailbox.py.
local function find_mailbox_refusal()
  local push, pop, bytes, max_events, max_bytes, anywhere = unpack(change.mailbox, 2)
  local waits = is_waiter(mailbox.first)
  if push ~= '' and mailbox.first ~= '' and waits ~= is_waiter(push) then return RULES.mailbox_changed end
  if pop ~= '' and mailbox.first ~= pop and not (anywhere and is_waiter(pop)) then return RULES.mailbox_changed end
  if push == '' or is_waiter(push) then return nil end
  local first, before, size = numbers_of(mailbox.first)
  local last, total = numbers_of(mailbox.last)
  local kept = mailbox.first ~= '' and last - first + 1 or 0
  if max_events ~= 0 and kept >= max_events then return RULES.mailbox_full end
  if max_bytes ~= 0 and total - before + size + bytes > max_bytes then return RULES.mailbox_full end
  return nil
end

local function find_obstacle()
  if change.mailbox then
    load_mailbox()
    local refusal = find_mailbox_refusal()
    if refusal then return {refusal, header_text} end
  end
  -- What was computed from an older state would undo what has been written there meanwhile.
  if change.expect_state and change.expect_state ~= header.state_version then return {'state', header_text} end
  for _, op in ipairs(change.ops) do
    if op[1] == 'p' then
      local path = op[2].path or ''
      local activation = find(path)
      -- A fresh activation over a live one would leave two claims on one activation, or count it twice.
      local is_live = activation and STATUS[activation.status].kind == 'live' and path ~= '' and not is_report(path)
      if is_live and not contains(change.drop or {}, path) then return {'taken', header_text} end
    end
  end
  return nil
end

-- The activation at `path` stops counting: it goes away or is written afresh.
local function remove(path)
  local old = find(path)
  if old then
    count(old.status, -1, path)
    old.status = ''
    touch(old)
  end
end

local function is_set(value)
  return value ~= 0 and value ~= '' and value ~= false
end

local DO = {}

function DO.p(op) -- CreateActivation: activation, claim, delay
  local activation = as_activation(op[2], op[2].path or '')
  remove(activation.path)
  local status = activation.status
  activation.status = ''
  put(activation, {status = status}, op[3], op[4])
end

function DO.s(op) -- UpdateActivation: path, fields, claim, delay
  put(must(op[2]), op[3], op[4], op[5])
end

function DO.n(op) -- StartNextItem: path, template, prefix, how many times
  local block = must(op[2])
  for _ = 1, op[5] do
    local place = block.next_item
    if place >= block.total then return end
    block.next_item = place + 1
    touch(block)
    local item = {}
    for name, value in pairs(op[3]) do item[name] = value end
    as_activation(item, op[2] .. '.' .. string.format('%d', place))
    local status = item.status
    -- The id of an item: `make_item_id` of orchestrator/rules/value_ids.py makes it by the same rule.
    item.index, item.input, item.status = place, op[4] .. '.' .. string.format('%d', place), ''
    put(item, {status = status}, '', 0)
  end
end

function DO.u(op) -- CancelPendingItems: path
  local block = must(op[2])
  local never = block.total - block.next_item
  block.pending_children, block.next_item = block.pending_children - never, block.total
  block.never_started = block.never_started + never
  touch(block)
end

local function emit(block, event)
  local completed = block.total - block.pending_children - block.never_started
  events[#events + 1] = string.format('%s,"completed":%d,"total":%d}', event, completed, block.total)
end

function DO.t(op) -- EmitProgress: path, event without its closing brace
  emit(must(op[2]), op[3])
end

function DO.d(op) -- CountDown: path, the operation that follows the last, event without its closing brace or ''
  local block = must(op[2])
  block.pending_children = block.pending_children - 1
  touch(block)
  if op[4] ~= '' then emit(block, op[4]) end
  if block.pending_children == 0 then DO.s(op[3]) end
end

function DO.r(op) -- UpdateRun: fields, unless
  if op[3] ~= '' and is_set(header[op[3]]) then return end
  local before = header.status
  assign(header, op[2], RULES.header)
  local status = header.status
  if status ~= before and not has(RUN[before].may_follow, status) then
    error({err = string.format("ILLEGAL a run cannot be '%s' after '%s'", status, before)})
  end
  if header.started_at == 0 and status == 'running' then header.started_at = now end
  header.ended_at = RUN[status].final and now or nil
end

-- Claim or queue the run's own activation, for settling: at once where the change says so, else when nothing is live.
-- The commit that takes the count to zero does it itself: after a crash in between nobody would.
local function settle()
  if header.status ~= 'running' or not (change.settle_now or header.live == 0) then return end
  local root = find('')
  if root and (change.settle_now or root.status == 'open') then
    put(root, {status = 'queued', phase = 'settle', abandoned_attempts = 0}, change.settle_token, 0)
  end
end

-- What the header has no room for any more is kept beside it, for as long as a repeat can come.
local function displace(id, text)
  local old = redis.call('ZRANGEBYSCORE', KEYS[13], '-inf', now - RULES.request_memory, 'LIMIT', 0, 100)
  if #old > 0 then
    redis.call('HDEL', KEYS[12], unpack(old))
    redis.call('ZREM', KEYS[13], unpack(old))
  end
  redis.call('HSET', KEYS[12], id, text)
  redis.call('ZADD', KEYS[13], now, id)
  redis.call('PEXPIRE', KEYS[12], RULES.request_memory)
  redis.call('PEXPIRE', KEYS[13], RULES.request_memory)
end

local function remember()
  local text = encode_reply(RULES.remembered)
  if change.by_lease then
    local activation = activations[change.by[1]]
    if activation.lease_token ~= change.by[2] then -- the claim has ended
      activation.last_lease_token, activation.last_reply = change.by[4] or change.by[2], text ~= '' and text or nil
      touch(activation)
    elseif change.by[3] > 0 then
      activation.flush_seq = change.by[3]
      touch(activation)
    end
  elseif change.by[1] ~= '' then
    -- The request that has created the run is known by its id, and has no answer.
    if header.last_reply ~= '' then displace(header.last_request_id, header.last_reply) end
    if change.by[6] ~= '' then displace(change.by[6], RULES.undone) end
    header.last_request_id, header.last_reply = change.by[1], text ~= '' and text or nil
  end
end

-- Drop the events before the newest of those that are too old. Ids begin with the moment at which they were written.
local function trim_old()
  local last = now - change.max_event_age - 1
  local old = last > 0 and redis.call('XREVRANGE', KEYS[6], string.format('%d', last), '-', 'COUNT', 1)[1]
  return old and redis.call('XTRIM', KEYS[6], 'MINID', '~', old[1]) or 0
end

-- Drop the oldest events, in whole nodes of the stream. One that could go as well stays, to mark the gap.
local function trim()
  local gone = change.max_events and redis.call('XTRIM', KEYS[6], 'MAXLEN', '~', change.max_events + 1) or 0
  if change.max_event_age and #events > 0 then gone = gone + trim_old() end
  if gone > 0 then header.trimmed = redis.call('XRANGE', KEYS[6], '-', '+', 'COUNT', 1)[1][1] end
end

local function save_mailbox()
  local push, pop, bytes = change.mailbox[2], change.mailbox[3], change.mailbox[4]
  if push ~= '' and not is_waiter(push) then
    local number, total = numbers_of(mailbox.last)
    push = string.format('%012d:%d:%d:', number + 1, total + bytes, bytes) .. push
  end
  if push ~= '' then redis.call('ZADD', KEYS[9], 0, mailbox.start .. push) end
  if pop ~= '' then redis.call('ZREM', KEYS[9], mailbox.start .. pop) end
end

local function save_extras()
  local at = 3
  local function words(number)
    local found = {}
    for place = 1, number do found[place] = ARGV[at + place - 1] end
    at = at + number
    return found
  end
  bulk('HDEL', KEYS[3], words(change.n[1]))
  for _ = 1, change.n[2], 2 do
    redis.call('HSETNX', KEYS[3], ARGV[at], ARGV[at + 1])
    at = at + 2
  end
  bulk('HSET', KEYS[4], words(change.n[3]))
  bulk('HDEL', KEYS[4], words(change.n[4]))
  bulk('HSET', KEYS[5], words(change.n[5]))
  bulk('HDEL', KEYS[5], words(change.n[6]))
  if change.drop_events then
    redis.call('XTRIM', KEYS[6], 'MAXLEN', 0)
    header.trimmed = nil
  end
  if change.mailbox then save_mailbox() end
end

local function save_index(status, resource, awaited)
  local awaits = is_awaiting(header)
  if header.status == status and header.resource_id == resource and awaits == awaited then return end
  local before = setmetatable({status = status, resource_id = resource}, {__index = header})
  local words = {}
  for _, member in ipairs(index_members(header, awaits)) do
    words[#words + 1] = 0
    words[#words + 1] = member
  end
  redis.call('ZREM', KEYS[11], unpack(index_members(before, awaited)))
  redis.call('ZADD', KEYS[11], unpack(words))
end

local function commit()
  change, mailbox = cjson.decode(ARGV[2]), nil
  lease, redelivery_delay = change.lease, change.redelivery_delay
  if not load_header() then return {'unknown'} end
  local refused = check_guards() or find_obstacle()
  if refused then return refused end

  local awaited = is_awaiting(header)
  local status, settle_count, resource = header.status, header.settle_count, header.resource_id
  begin()
  if change.n[3] + change.n[4] > 0 then -- the change writes the state, which gets a version of its own
    header.state_version = string.format('%d:', header.commits) .. (change.by_lease and change.by[2] or change.by[1])
  end
  for _, path in ipairs(change.drop or {}) do remove(path) end
  for place = #ARGV - change.n[7] + 1, #ARGV do events[#events + 1] = ARGV[place] end
  for _, op in ipairs(change.ops) do DO[op[1]](op) end
  settle()
  local reply_text = encode_reply(#dispatches)
  remember()
  save_extras()
  trim()
  save()
  save_index(status, resource, awaited)
  if header.settle_count > settle_count then redis.call('XADD', KEYS[10], 'MAXLEN', 1, '*', 'r', header.settle_count) end
  local reply = {'', header_text, reply_text}
  return claimed and package(reply, claimed) or reply
end

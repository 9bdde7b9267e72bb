-- One run in the middle of one change, for `claim` and `commit`. The reference reading is orchestrator/rules/apply.py.
--
-- Headers and activations are flat documents and may be decoded. Values, state and context never are: Lua would change
-- large numbers and empty lists. Everything is worked out in tables first and written by `save` at the end, because Redis
-- takes nothing back: so a script that fails has written nothing.
-- KEYS: header, activations, values, state, context, events, timers; commit adds awaiting, mailboxes, settled, index,
-- requests, request moments.
-- ARGV[1] is the run's id. Both are those of one run, and are replaced where a script goes on to another.

local LAST_MOMENT = 99999999999999 -- cjson writes whole numbers of up to 14 digits
local CHUNK = 4000 -- unpack fails at about 8,000

local KEYS, ARGV = KEYS, ARGV
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local run_id, header, header_text, namespace
local lease, redelivery_delay = 0, 0 -- in ms, as the claim or the change says
local activations, stored, texts -- by path; stored: status, moment and label as they were read
local touched, order, dispatches, events, claimed

-- Begin with a run: with its keys, and with the words that are about it.
local function turn_to(keys, words)
  KEYS, ARGV = keys, words
  run_id, header, header_text, namespace = words[1], nil, nil, nil
  activations, stored, texts = {}, {}, {}
  touched, order, dispatches, events, claimed = {}, {}, {}, {}, nil
end

turn_to(KEYS, ARGV)

local function load_header()
  header_text = redis.call('GET', KEYS[1])
  if not header_text then return false end
  header = as_header(cjson.decode(header_text))
  namespace = header.namespace
  return true
end

local function find(path)
  local activation = activations[path]
  if activation == nil then
    local text = redis.call('HGET', KEYS[2], path)
    activation = text and as_activation(cjson.decode(text), path) or false
    stored[path] = activation and {
      status = activation.status, deadline = activation.deadline, label = activation.label, text = text,
    }
    activations[path] = activation
  end
  return activation
end

local function must(path)
  return find(path) or error({err = 'ERR no activation at ' .. path .. ' in run ' .. run_id})
end

-- Write fields into a document, which leaves defaults out.
local function assign(doc, fields, defaults)
  for name, value in pairs(fields) do
    if value == defaults[name] then value = nil end
    doc[name] = value
  end
end

local function moment(delay)
  return math.min(now + delay, LAST_MOMENT)
end

local function touch(activation)
  if not touched[activation.path] then
    touched[activation.path] = true
    order[#order + 1] = activation.path
  end
  activations[activation.path] = activation
end

-- The run's own activation never counts: the settling would then keep the run from settling.
local function count(status, by, path)
  if is_report(path) then
    local claim = STATUS[status].claim
    if claim == 'at_once' or claim == 'held' then
      local name = RULES.report_counter[string.sub(path, -1)] or 'calling'
      header[name] = header[name] + by
    end
    return
  end
  local kind = path ~= '' and STATUS[status].kind
  if kind == 'live' then
    header.live = header.live + by
  elseif kind == 'awaiting' then
    header[status] = header[status] + by
  end
end

local function emit_start(activation)
  if activation.quiet or not RULES.starting[activation.phase] then return end
  if activation.attempt ~= 0 or activation.abandoned_attempts ~= 0 or activation.parked ~= '' then return end
  events[#events + 1] = cjson.encode({
    type = RULES.step_start, path = activation.path, visit = activation.visit, step = activation.step,
    input = activation.input, resume = activation.resumed and activation.resume or nil,
  })
end

local function dispatch(activation, delay)
  dispatches[#dispatches + 1] = {activation.path, activation.seq, activation.route, delay}
end

local DEADLINE = {
  lease = function() return moment(lease) end,
  redelivery = function() return moment(redelivery_delay) end,
  delay = function(delay) return moment(delay) end,
  look = function(delay) return moment(delay) end,
  timeout = function(delay) return delay ~= 0 and moment(delay) or nil end,
}

local function set_all(activation, names, value)
  for _, name in ipairs(names or NOTHING) do activation[name] = value end
end

-- The row of the activation's new status; an error where the table has no way to it.
local function row_of(activation, before)
  local status, came_from = activation.status, STATUS[before]
  local may_follow = has(came_from.may_follow, status)
  if may_follow or (activation.path == '' and has(came_from.root_may_follow, status)) then return STATUS[status] end
  local words = "ILLEGAL the activation at '%s' cannot be '%s' after '%s'"
  error({err = string.format(words, activation.path, tostring(status), before == '' and 'nothing' or before)})
end

-- Give the activation what the row of its new status says: moments, numbers, lease, deadline and dispatch.
local function stamp(activation, before, token, delay)
  local row, came_from, seq = row_of(activation, before), STATUS[before], header.commits
  if row.deadline == 'lease' then
    emit_start(activation)
    claimed = activation.path
  end
  set_all(activation, row.resets, nil)
  set_all(activation, row.stamps, now)
  for _, name in ipairs(row.first_stamps or NOTHING) do
    if activation[name] == 0 then activation[name] = now end
  end
  if came_from.kind == 'awaiting' then set_all(activation, row.answer_stamps, now) end
  if row.ordered and activation.first_seq == 0 then activation.first_seq = seq end
  if row.seq == 'new' or (row.seq == 'claimed' and not came_from.is_asked_for) then activation.seq = seq end
  activation.lease_token = token ~= '' and token or nil
  activation.lease = row.deadline == 'lease' and lease ~= 0 and lease or nil
  activation.deadline = row.deadline and DEADLINE[row.deadline](delay)
  if row.dispatch == 'at_once' then
    dispatch(activation, 0)
  elseif row.dispatch == 'after_delay' then
    dispatch(activation, math.max(delay, 1))
  end
end

-- Write `fields` into the activation, and stamp it where they bring a new status.
local function put(activation, fields, token, delay)
  local before = activation.status
  assign(activation, fields, RULES.activation)
  if token ~= '' then activation.status = 'running' end
  if fields.status or token ~= '' then
    stamp(activation, before, token, delay)
  elseif delay ~= 0 then
    activation.deadline = moment(delay)
  end
  count(before, -1, activation.path)
  count(activation.status, 1, activation.path)
  touch(activation)
end

local function begin()
  header.commits = header.commits + 1
  header.updated_at = now
end

-- Call `command key [first] word word …` in chunks.
local function bulk(command, key, words, first)
  for from = 1, #words, CHUNK do
    local to = math.min(from + CHUNK - 1, #words)
    if first then
      redis.call(command, key, first, unpack(words, from, to))
    else
      redis.call(command, key, unpack(words, from, to))
    end
  end
end

-- Members of the set of awaiting activations, all with the score 0: see `awaiting_ranges` of redis_keys.py.
local function by_label(label, path)
  return string.format('l%d:', #label) .. label .. ':' .. path
end

local function add(words, member)
  words[#words + 1] = 0
  words[#words + 1] = member
end

local function save_activations()
  local here = header.namespace .. '\31' .. run_id .. '\31'
  local there = namespace .. '\31' .. run_id .. '\31'
  local docs, gone, timers, no_timers, awaiting, not_awaiting = {}, {}, {}, {}, {}, {}
  for _, path in ipairs(order) do
    local activation, old = activations[path], stored[path]
    local status = activation.status
    if status == '' then
      gone[#gone + 1] = path
    else
      texts[path] = cjson.encode(activation)
      docs[#docs + 1] = path
      docs[#docs + 1] = texts[path]
    end
    if has_timer(header, activation) then
      timers[#timers + 1] = place_of(activation)
      timers[#timers + 1] = here .. path
      if here ~= there then no_timers[#no_timers + 1] = there .. path end
    elseif old == nil or (old and old.deadline ~= 0) then
      no_timers[#no_timers + 1] = there .. path
    end
    local before = old and STATUS[old.status].kind == 'awaiting' and old.label or ''
    local label = STATUS[status].kind == 'awaiting' and activation.label or ''
    if before ~= '' and before ~= label then not_awaiting[#not_awaiting + 1] = by_label(before, path) end
    if label ~= '' then add(awaiting, by_label(label, path)) end
    if STATUS[status].kind == 'awaiting' then
      add(awaiting, 'p' .. path)
    elseif old == nil or (old and STATUS[old.status].kind == 'awaiting') then
      not_awaiting[#not_awaiting + 1] = 'p' .. path
    end
  end
  bulk('HSET', KEYS[2], docs)
  bulk('HDEL', KEYS[2], gone)
  bulk('ZREM', KEYS[7], no_timers)
  bulk('ZADD', KEYS[7], timers)
  if KEYS[8] then
    bulk('ZREM', KEYS[8], not_awaiting)
    bulk('ZADD', KEYS[8], awaiting)
  end
end

local function save()
  header_text = cjson.encode(header)
  redis.call('SET', KEYS[1], header_text)
  for _, event in ipairs(events) do
    redis.call('XADD', KEYS[6], '*', 'd', event)
  end
  save_activations()
end

-- Append what the claim of the activation at `path` needs: activation, values (ids and texts by turns), state, context.
local function package(reply, path)
  local activation = find(path)
  if not activation or activation.status == '' then return reply end
  local ids, seen = {}, {}
  local function want(id)
    if id ~= '' and not seen[id] then
      seen[id] = true
      ids[#ids + 1] = id
    end
  end
  want(activation.input)
  want(activation.suspend)
  want(activation.resume)
  for id in string.gmatch(activation.needs, '%S+') do want(id) end
  local values = {}
  for from = 1, #ids, CHUNK do
    local found = redis.call('HMGET', KEYS[3], unpack(ids, from, math.min(from + CHUNK - 1, #ids)))
    for place, text in ipairs(found) do
      if text then
        values[#values + 1] = ids[from + place - 1]
        values[#values + 1] = text
      end
    end
  end
  reply[#reply + 1] = texts[path] or stored[path].text
  reply[#reply + 1] = values
  reply[#reply + 1] = redis.call('HGETALL', KEYS[4])
  reply[#reply + 1] = redis.call('HGETALL', KEYS[5])
  return reply
end

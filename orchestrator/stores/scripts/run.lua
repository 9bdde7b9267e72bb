-- What claim and commit share: one run in the middle of one change. The reference reading is orchestrator/core/apply.py.
--
-- Headers and records are flat documents and may be decoded; values, state and context are opaque and never are. All that is
-- decided is decided on tables; `save` writes at the end, so that a script that fails has written nothing.
-- KEYS: header, records, values, state, context, events, due; commit adds held, mail, rests, index. ARGV[1] is the run's id.

local LIVE = {queued = true, running = true, retrying = true, sleeping = true}
local HELD = {suspended = true, waiting = true, paused = true}
local ENDED = {success = true, failed = true, skipped = true, canceled = true}
local FINAL = {success = true, failed = true, canceled = true, tripwire = true}
local TOLD = {run = true, split = true, enter = true}
local LAST_MOMENT = 99999999999999 -- cjson writes whole numbers of up to 14 digits
local CHUNK = 4000 -- unpack fails at about 8,000

local run_id = ARGV[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local lease, grace = 0, 0
local header, header_text, namespace
local records, stored, texts = {}, {}, {} -- stored: status and moment as they were read
local touched, order = {}, {}
local dispatches, events = {}, {}
local claimed = nil

local function load_header()
  header_text = redis.call('GET', KEYS[1])
  if not header_text then return false end
  header = cjson.decode(header_text)
  header.status = header.status or 'pending'
  namespace = header.namespace or ''
  return true
end

local function adopt(record, path)
  record.path = path
  record.status = record.status or 'queued'
  record.phase = record.phase or 'run'
  return record
end

local function find(path)
  local record = records[path]
  if record == nil then
    local text = redis.call('HGET', KEYS[2], path)
    record = false
    if text then
      record = adopt(cjson.decode(text), path)
      stored[path] = {status = record.status, due = record.due, text = text}
    else
      stored[path] = false
    end
    records[path] = record
  end
  return record
end

local function must(path)
  return find(path) or error({err = 'ERR no record at ' .. path .. ' in run ' .. run_id})
end

-- Defaults are left out of a document. Those of `index`, `status` and `auto_restart` are not empty.
local function assign(doc, fields)
  for name, value in pairs(fields) do
    local empty = value == '' or value == 0 or value == false
    if empty and name ~= 'index' and name ~= 'status' and name ~= 'auto_restart' then value = nil end
    doc[name] = value
  end
end

local function some(value)
  return value ~= nil and value ~= 0 and value ~= '' and value ~= false
end

local function moment(delay)
  return math.min(now + delay, LAST_MOMENT)
end

local function touch(record)
  if not touched[record.path] then
    touched[record.path] = true
    order[#order + 1] = record.path
  end
  records[record.path] = record
end

local function count(status, by, path)
  if path == '' then return end
  if LIVE[status] then
    header.live = (header.live or 0) + by
  elseif HELD[status] then
    header[status] = (header[status] or 0) + by
  end
end

local function tell_start(record)
  if record.quiet or not TOLD[record.phase] or some(record.attempt) or some(record.lost) or record.parked then return end
  events[#events + 1] = cjson.encode({
    type = 'workflow-step-start', path = record.path, visit = record.visit or '', step = record.step or '',
    input = record.input or '', resume = record.resumed and (record.resume or '') or nil,
  })
end

local function dispatch(record, seq, delay)
  dispatches[#dispatches + 1] = {record.path, seq, record.route or '', delay}
end

-- Times, numbers, lease and the word to others, as the new status asks.
local STAMPS = {}

function STAMPS.running(record, before, token)
  tell_start(record)
  local seq = header.commits
  local kept = before == 'queued' or before == 'retrying' or before == 'sleeping'
  record.token, record.due, record.part, record.parked = token, moment(lease), nil, nil
  record.order = record.order or seq
  record.started_at = record.started_at or now
  if not kept then record.seq = seq end
  claimed = record.path
end

function STAMPS.queued(record, before)
  if HELD[before] then record.resumed_at = now end
  record.token, record.seq, record.queued_at, record.due = nil, header.commits, now, moment(grace)
  dispatch(record, header.commits, 0)
end

local function later(record, before, token, delay)
  record.token, record.seq, record.due, record.lost = nil, header.commits, moment(delay), nil
  record.started_at = record.started_at or now
  record.order = record.order or header.commits
  dispatch(record, header.commits, math.max(delay, 1))
end
STAMPS.retrying, STAMPS.sleeping = later, later

function STAMPS.open(record)
  record.token, record.due, record.lost = nil, nil, nil
  record.order = record.order or header.commits
  record.started_at = record.started_at or now
end

function STAMPS.waiting(record, before, token, delay)
  record.token, record.seq, record.lost, record.suspended_at = nil, header.commits, nil, now
  record.due = delay ~= 0 and moment(delay) or nil
  record.order = record.order or header.commits
  record.started_at = record.started_at or now
end

function STAMPS.suspended(record)
  record.token, record.seq, record.due, record.lost, record.suspended_at = nil, header.commits, nil, nil, now
end

function STAMPS.paused(record)
  record.token, record.seq, record.due = nil, header.commits, nil
end

local function ended(record)
  record.token, record.due, record.lost, record.ended_at = nil, nil, nil, now
  record.started_at = record.started_at or now
end
for status in pairs(ENDED) do STAMPS[status] = ended end

-- Move `record` to what `fields` say, with all that its new status brings along.
local function put(record, fields, token, delay)
  local before = record.status
  assign(record, fields)
  if token ~= '' then record.status = 'running' end
  if fields.status or token ~= '' then
    local stamp = STAMPS[record.status] or error({err = 'ERR a record cannot be ' .. tostring(record.status)})
    stamp(record, before, token ~= '' and token or nil, delay)
  elseif delay ~= 0 then
    record.due = moment(delay)
  end
  count(before, -1, record.path)
  count(record.status, 1, record.path)
  touch(record)
end

local function begin()
  header.commits = (header.commits or 0) + 1
  header.updated_at = now
end

-- Calls `command key [first] word word …` in chunks.
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

local function save_records()
  local here = (header.namespace or '') .. '\31' .. run_id .. '\31'
  local there = namespace .. '\31' .. run_id .. '\31'
  local docs, gone, due, undue, held, unheld = {}, {}, {}, {}, {}, {}
  for _, path in ipairs(order) do
    local record, old = records[path], stored[path]
    local status = record.status
    if status == '' then
      gone[#gone + 1] = path
    else
      texts[path] = cjson.encode(record)
      docs[#docs + 1] = path
      docs[#docs + 1] = texts[path]
    end
    if some(record.due) and (LIVE[status] or status == 'waiting') and header.runtime ~= 'local' then
      due[#due + 1] = record.due
      due[#due + 1] = here .. path
      if here ~= there then undue[#undue + 1] = there .. path end
    elseif old == nil or (old and old.due) then
      undue[#undue + 1] = there .. path
    end
    if HELD[status] then
      held[#held + 1] = path
    elseif old == nil or (old and HELD[old.status]) then
      unheld[#unheld + 1] = path
    end
  end
  bulk('HSET', KEYS[2], docs)
  bulk('HDEL', KEYS[2], gone)
  bulk('ZREM', KEYS[7], undue)
  bulk('ZADD', KEYS[7], due)
  if KEYS[8] then
    bulk('SREM', KEYS[8], unheld)
    bulk('SADD', KEYS[8], held)
  end
end

local function save()
  header_text = cjson.encode(header)
  redis.call('SET', KEYS[1], header_text)
  for _, event in ipairs(events) do
    redis.call('XADD', KEYS[6], '*', 'd', event)
  end
  save_records()
end

-- Appends what the claim of the record at `path` needs: record, values (ids and texts by turns), state, context.
local function package(reply, path)
  local record = find(path)
  if not record or record.status == '' then return reply end
  local ids, seen = {}, {}
  local function want(id)
    if some(id) and not seen[id] then
      seen[id] = true
      ids[#ids + 1] = id
    end
  end
  want(record.input)
  want(record.suspend)
  want(record.resume)
  for id in string.gmatch(record.needs or '', '%S+') do want(id) end
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

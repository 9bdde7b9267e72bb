-- Rules that several scripts follow. RULES, the tables of the core with the fields' defaults, stands before this text
-- (`redis_wire.rules` writes it): no script says a status, a stamp or a default of its own. The reference reading is
-- orchestrator/rules/apply.py and timers.py.

local STATUS, RUN = RULES.status, RULES.run
local ACTIVATION, HEADER = {__index = RULES.activation}, {__index = RULES.header}
local NOTHING = {}

-- A cell of a table that is nil has its default: nothing is stamped, nothing is dispatched.

-- Read a document as an activation or a header. What it leaves out has its default, and a default is set by taking the
-- field away.
local function as_activation(doc, path)
  doc.path = path
  return setmetatable(doc, ACTIVATION)
end

local function as_header(doc)
  return setmetatable(doc, HEADER)
end

-- The text of several statuses, each between blanks, has this one.
local function has(statuses, status)
  return statuses ~= nil and string.find(statuses, ' ' .. status .. ' ', 1, true) ~= nil
end

-- A report is at this path, and no node of the graph.
local function is_report(path)
  return string.sub(path, 1, 1) == '-'
end

-- Nothing may go on at `path`: the run has settled, or it is closed and this is not its settling. A report always may.
local function is_shut(header, path)
  if is_report(path) then return false end
  return header.status ~= 'running' or (header.closed and path ~= '')
end

-- The run is at work in its caller's process, and the claim would be another runtime's.
local function is_elsewhere(header, path, runtime)
  return RULES.unswept[header.runtime] ~= nil and runtime ~= '' and runtime ~= header.runtime and not is_report(path)
end

-- The reason why `token` does not hold the activation; nil where it does.
local function lease_refusal(header, activation, path, token)
  if is_shut(header, path) then return 'ended' end
  if not activation or activation.status ~= 'running' or activation.lease_token ~= token then return 'lost' end
  return nil
end

local function has_timer(header, activation)
  return activation.deadline ~= 0 and STATUS[activation.status].deadline ~= nil and not RULES.unswept[header.runtime]
end

-- The place of a timer in the index of its shard: each lane has a part of its own.
local function place_of(activation)
  return activation.deadline + (RULES.lane[STATUS[activation.status].deadline] or 0)
end

-- The activation's moment has come, as it stands there now.
local function is_due(activation, now)
  return activation.deadline > 0 and activation.deadline <= now
end

-- The end of the lease was written by a clock that has gone back since.
local function is_stranded(header, activation, now)
  return activation.status == 'running' and activation.lease > 0 and header.auto_restart
    and activation.deadline - now > 2 * activation.lease
end

-- Take or keep the right to sweep. Answers the grant, nil where another holds it, and the right if it is to be written.
local function take_sweep_right(right, holder, lease, pause, now)
  local off, ahead = math.abs(now - right.last), right.ahead
  local seen = {holder = right.holder, ['until'] = right['until'], last = now, steady_since = right.steady_since}
  if right.last == 0 or off > pause then seen.steady_since = now end
  if right.last - now > pause then ahead = math.max(ahead, right.last) end
  seen.ahead = ahead > now and ahead or 0
  if right.holder ~= '' and right.holder ~= holder and right.last <= now and now < right['until'] then
    return nil, off > math.floor(pause / 2) and seen or nil
  end
  seen.holder, seen['until'] = holder, now + lease
  return {math.max(0, now - seen.steady_since), math.max(0, seen.ahead - now)}, seen
end

-- A sweep may still have something to do for the timer. Only a wait for an event outlasts the run's settling.
local function is_timer_live(header, activation)
  if is_report(activation.path) then return true end
  if header.status == 'running' then return not is_shut(header, activation.path) end
  return RULES.swept[header.status] and STATUS[activation.status].deadline == 'timeout'
end

-- As `RunHeader.is_awaiting`.
local function is_awaiting(header)
  return header.suspended + header.waiting + header.paused > 0 and not RUN[header.status].final
end

-- The members of a run in the listing index of its shard: see `index_prefix` of orchestrator/stores/redis_keys.py.
local function index_members(header, awaits)
  local function part(value)
    return #value .. ':' .. value .. ':'
  end
  local tail = string.format('%015d:', header.created_at) .. header.run_id
  local workflow, status = part(header.workflow_id), part(header.status)
  local members = {'a' .. tail, 'w' .. workflow .. tail, 's' .. status .. tail, 'b' .. workflow .. status .. tail}
  if header.resource_id ~= '' then
    for place = 1, 4 do members[place + 4] = 'r' .. part(header.resource_id) .. members[place] end
  end
  for place = 1, awaits and #members or 0 do members[#members + 1] = 'h' .. members[place] end
  return members
end

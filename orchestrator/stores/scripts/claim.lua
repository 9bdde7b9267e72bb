-- Claim a queued activation, or one whose deadline has come. A repeat gets the first reply.
-- ARGV: run id, path, seq, token, lease, runtime, sending, sender. Returns {'', header, activation, values, state,
-- context} or {reason[, header]}.

local path, seq, token = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local sending, sender = tonumber(ARGV[7]), ARGV[8]
lease = tonumber(ARGV[5])

if not load_header() then return {'unknown'} end
local activation = find(path)
if not activation then return {'unknown', header_text} end
if is_shut(header, path) then return {'ended', header_text} end
-- A client may send a claim again whose reply was lost: its token tells it from another worker's.
if activation.status == 'running' and activation.lease_token == token then return package({'', header_text}, path) end
if is_elsewhere(header, path, ARGV[6]) then return {'elsewhere', header_text} end
local fields = {status = 'running'}
if sending > 0 then
  -- By what was sent for a task, from whoever has it.
  local present = activation.sending == sending and activation.sender == sender
  if not present or STATUS[activation.status].kind ~= 'live' then return {'stale', header_text} end
  fields.phase, fields.sender = 'execute', token
else
  if activation.seq ~= seq then return {'stale', header_text} end
  local over, claimable = activation.deadline <= now, STATUS[activation.status].claim
  if not claimable then return {'stale', header_text} end
  if claimable == 'at_deadline' and not over then return {'early', header_text} end
  if claimable == 'held' then return {'busy', header_text} end
  if activation.sending > 0 and activation.phase == 'run' then fields.sender = token end
end
begin()
put(activation, fields, token, 0)
save()
return package({'', header_text}, path)
